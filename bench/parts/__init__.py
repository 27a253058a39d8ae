"""What `python -m bench PART` measures on a CPU, a module a part; each has `run(...) -> rows` and prints a table.

frameworks (whole meta-steps beside the peers) · hvp (Hessian-vector products) · kernels (each kernel's rate beside the
machine's) · scaling (time and memory against sizes) · sampler (rollouts beside the physics alone).
"""
