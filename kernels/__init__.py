"""The kernels: everything that computes. Installed, and to be imported, as `tinymaml.kernels`. Read in this order:

names (a family and a name) · cpu (in NumPy, the reference) · formulas (elementwise kernels, written once for all
devices) · cpu/compiled (in Numba and LLVM) · gpu (in CUDA C++) · locks (that a fork leaves free).
"""

if __name__ == "kernels":
    raise ImportError("'kernels' is not a module of its own: import it as 'tinymaml.kernels'")
