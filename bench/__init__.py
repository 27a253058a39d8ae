"""Benchmarks: `python -m bench [metastep|hvp|images|kernels]`, all of them without an argument."""
