"""The same kernels in Numba, where that pays: a module has the name of its family, a function that of its kernel."""
