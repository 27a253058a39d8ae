"""The recorded graph and its two sweeps, on which everything else stands. Read in this order:

tree (parameters are pytrees) · tracing (a step's calls of kernels, written down on arrays without values) · operators,
interop (what a tensor answers Python, NumPy and others) · tensor (a node of the graph, a tensor) · primitive (a
declaration and its two derivative rules) · sweeps (pull, reverse mode; push, forward mode).
"""
