"""Meta reinforcement learning (paper, section 5.3): domain · methods (what differs between them) · workbench (policies,
samplers, recorded steps) · outer (TRPO and Adam) · trainer · experiments · table · plots · show (a policy, animated).
"""
