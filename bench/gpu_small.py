"""Small meta-steps on the GPU, eager and as a graph, for compute-sanitizer: `python -m bench.gpu_small`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.ours import gpu_eager, gpu_graph
from bench.workloads import WORKLOADS
from tinymaml.device import set_precision
from tinymaml.kernels.gpu import cupy


def main() -> None:
    cupy().cuda.set_allocator(None)  # each array in an allocation of its own: what is beyond its end is seen
    for name, image in (("W1", None), ("W2a", (14, 14, 1)), ("W4", (21, 28, 3))):
        changes = {} if image is None else {"image": image, "width": 8}
        w = replace(WORKLOADS[name], tasks=2, steps=1, **changes)
        for maker in (gpu_eager, gpu_graph):
            gradient, step = maker(w, *w.data(np.dtype(np.float32), w.tasks), 2)
            gradient()
            step()
            step()
        print(f"{name}: done")


if __name__ == "__main__":
    set_precision("fp32")
    main()
    from bench import ours

    ours.PRECISION = "tf32"
    main()
