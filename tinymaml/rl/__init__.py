"""Meta reinforcement learning (paper, section 4.2, algorithm 3): policies that adapt to a new goal in a few steps.

To be read: policies (distributions of actions) · vector_env, rollouts, sampler, advantages (how transitions are
collected) · objectives, learner (what is differentiated, with the inner steps of `tinymaml.meta.adaptation`) · trpo.
"""
