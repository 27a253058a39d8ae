"""Meta reinforcement learning (paper, section 5.3): settings · training · table · plots · show (a policy, animated)."""
