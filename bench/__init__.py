"""Benchmarks: `python -m bench [metastep|hvp]`, all of them without an argument."""
