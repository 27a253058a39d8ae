"""The image-classification workloads: networks and sizes of the paper's experiments, on made-up images."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

RATE, EPSILON = 1e-3, 1e-3  # Adam's step size; what batch-norm adds to the variance


class Workload(NamedTuple):
    """Four layers [conv3x3, no bias -> batch-norm -> ReLU], with stride 2 or each followed by a 2x2 max-pool, and a
    linear one on the mean or on all of what is left. All parameters are adapted, on the mean cross-entropy."""

    title: str
    image: tuple[int, int, int]
    filters: int
    pooled: bool
    ways: int
    tasks: int
    support: int
    query: int
    steps: int
    alpha: float
    peers: tuple[str, ...]  # those that run unless others are asked for

    def gflop(self, order: int) -> float:
        """Of the leanest algorithm known: 3 products for a layer's gradient, 6 more for its Hessian-vector product; the
        images need no gradient, which makes 2 and 2 of them in the first layer."""
        first, *others = [2 * p * q * 9 * i * o for _, (p, q), i, o in self.layers()]
        hessian = order == 2
        support = (3 + 6 * hessian) * sum(others) + (2 + 2 * hessian) * first
        query = 3 * sum(others) + 2 * first
        return self.tasks * (self.steps * self.support * support + self.query * query) / 1e9

    def layers(self) -> list[tuple[tuple[int, int], tuple[int, int], int, int]]:
        """(size of the images that come in, of the convolution's results, channels in, channels out) of each layer."""
        found, size = [], self.image[:2]
        for i, o in pairwise([self.image[2], *[self.filters] * 4]):
            halved = (size[0] // 2, size[1] // 2) if self.pooled else (math.ceil(size[0] / 2), math.ceil(size[1] / 2))
            found.append((size, size if self.pooled else halved, i, o))
            size = halved
        return found

    def features(self) -> int:
        """How many numbers the linear layer takes."""
        return self.filters * (self.image[0] // 16) * (self.image[1] // 16) if self.pooled else self.filters


_omniglot = partial(Workload, image=(28, 28, 1), filters=64, pooled=False)
_miniimagenet = partial(Workload, image=(84, 84, 3), filters=32, pooled=True)

# The usual peers leave out what is hopelessly slow on a workload (JAX's own convolution), or too large (vmap, 8 GB).
WORKLOADS = {
    "W2a": _omniglot(
        title="Omniglot 5-way 1-shot, 1 query image a class",
        ways=5,
        tasks=32,
        support=5,
        query=5,
        steps=1,
        alpha=0.4,
        peers=("jax-tuned", "jax-plain", "torch-vmap", "torch-loop"),
    ),
    "W2b": _omniglot(
        title="Omniglot 5-way 1-shot, 15 query images a class",
        ways=5,
        tasks=32,
        support=5,
        query=75,
        steps=1,
        alpha=0.4,
        peers=("jax-tuned", "torch-vmap", "torch-loop"),
    ),
    "W3": _omniglot(
        title="Omniglot 20-way 1-shot, 1 query image a class",
        ways=20,
        tasks=16,
        support=20,
        query=20,
        steps=5,
        alpha=0.1,
        peers=("jax-tuned", "torch-vmap", "torch-loop"),
    ),
    "W4": _miniimagenet(
        title="MiniImagenet 5-way 1-shot, 15 query images a class",
        ways=5,
        tasks=4,
        support=5,
        query=75,
        steps=5,
        alpha=0.01,
        peers=("jax-tuned", "torch-loop"),
    ),
}


def same(size: int, stride: int) -> tuple[int, int]:
    """The zeros that SAME adds before and after, as TensorFlow counts them, for a kernel of 3."""
    total = max((math.ceil(size / stride) - 1) * stride + 3 - size, 0)
    return total // 2, total - total // 2


def data(w: Workload, dtype: Any, tasks: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Parameters, support and query: the same numbers in both dtypes, the same tasks however many there are."""
    rng = np.random.default_rng(0)

    def normal(scale: float, *shape: int) -> Any:
        return (scale * rng.normal(size=(1, *shape))).astype(np.float32).astype(dtype)

    layers = [
        {"beta": normal(0.1, o), "gamma": 1 + normal(0.1, o), "w": normal(math.sqrt(2 / (9 * i)), 3, 3, i, o)}
        for _, _, i, o in w.layers()
    ]
    head = {"b": normal(0.1, 1, w.ways), "w": normal(0.1 * w.features() ** -0.5, w.features(), w.ways)}
    parts = [_images(w, np.random.default_rng((0, task))) for task in range(tasks)]
    support, query = (
        {"x": np.stack(x).astype(dtype), "y": np.tile(np.arange(w.ways).repeat(x[0].shape[0] // w.ways), (tasks, 1))}
        for x in zip(*parts, strict=True)
    )
    return {"head": head, "hidden": layers}, support, query


def _images(w: Workload, rng: Any) -> list[Any]:
    """Support and query of a task: for each class a pattern of 7x7 squares, with noise."""
    patterns = rng.random((w.ways, 7, 7, w.image[2]))
    patterns = patterns.repeat(w.image[0] // 7, 1).repeat(w.image[1] // 7, 2)
    found = []
    for size in (w.support, w.query):
        x = 0.8 * patterns.repeat(size // w.ways, 0) + 0.2 * rng.random((size, *w.image))
        found.append(x.astype(np.float32))
    return found
