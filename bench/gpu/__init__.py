"""What only a GPU can tell, `python -m bench gpu --out DIR`: run (its parts, one after the other, within the minutes
they have).

The parts: kernels · frameworks · launches · small (meta-steps for compute-sanitizer); and packed (Omniglot as a small
file), clock (how much time is left).
"""
