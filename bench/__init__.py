"""Benchmarks: `python -m bench [frameworks|hvp|kernels|scaling|memory]`, all of them without an argument."""
