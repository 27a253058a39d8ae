"""The same kernels in Numba, where that pays: a module has the name of its family, a function that of its kernel.

Such a function runs nothing: it builds a `Launch`. Read in this order: jit, folders, object_cache (what is compiled is
kept) · arrays (what kernels take) · vectors (explicit vectors), tile, rows, windows, functions (what is made of them) ·
thread_pool (launches on several threads) · the families, linear first; conv_plan, conv_tile and norm_passes are parts
of two · fused (kernels generated for a program) · launch_sequence (a program's launches, in machine code).
"""
