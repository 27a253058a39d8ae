"""Meta reinforcement learning (paper, section 4.2, algorithm 3): policies, rollouts, REINFORCE inside, TRPO outside.

Read policies (what acts), vector_env (where), rollouts and sampler (what is seen), advantages (what was good),
objectives and adaptation (what is differentiated, and how), learner and trpo (how the policy moves).
"""
