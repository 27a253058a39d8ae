"""The recorded graph and its two sweeps, on which everything else stands. Read in this order:

tree (parameters are pytrees) · tracing (a step's calls of kernels, recorded on arrays without values) · dispatch (from
a primitive to its kernel) · operators, interop (what a tensor answers Python, NumPy and others) · tensor (a node of the
graph, a tensor) · primitive (a declaration and its two derivative rules) · sweeps (pull, reverse mode; push, forward
mode).
"""
