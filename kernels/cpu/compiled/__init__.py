"""The same kernels in Numba, where that pays. A module here has the name of its family, a function that of its kernel."""
