"""Meta reinforcement learning (paper, section 4.2, algorithm 3): policy gradients inside, TRPO outside.

Read policies (distributions of actions), then how transitions are collected: rollouts, sampler, advantages; then what is
differentiated: objectives, learner (with `tinymaml.meta.adaptation`: the inner steps and their derivative); and trpo.
"""
