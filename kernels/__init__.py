"""The kernels: everything that computes. Installed, and to be imported, as `tinymaml.kernels`."""

if __name__ == "kernels":
    raise ImportError("'kernels' is not a module of its own: import it as 'tinymaml.kernels'")
