"""Meta reinforcement learning (paper, section 4.2, algorithm 3): policy gradients inside, TRPO outside.

Read policies (distributions of actions), then how transitions are collected: rollouts, sampler, advantages; then the
functions that are differentiated: objectives, learner (inner steps: `tinymaml.meta.adaptation`); and the update, trpo.
"""
