"""The workloads: the networks and sizes of the paper's experiments, on made-up data.

Nothing here imports a framework: each implementation makes its network from a workload in its own module.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

RATE, EPSILON = 1e-3, 1e-3  # Adam's step size; what batch-norm adds to the variance

# Where a process computes, and how it multiplies float32 there; set in its environment when it is started.
DEVICE = os.environ.get("BENCH_DEVICE", "cpu")
PRECISION = os.environ.get("BENCH_PRECISION", "fp32")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A meta-step: a network, all of whose parameters are adapted, and its tasks."""

    title: str
    tasks: int
    support: int  # examples of a task
    query: int
    steps: int
    alpha: float
    width: int  # hidden units or filters of each layer
    peers: tuple[str, ...] = ()  # those that run unless others are asked for
    records: str = "keep"  # what our meta-gradient does with the inner steps' records
    ways: int = 1  # a set has a whole number of examples for each of them

    def products(self) -> list[float]:
        """Operations of one product of each layer, for one example; of the layers that do most of the work."""
        raise NotImplementedError

    def parameters(self, rng: Any) -> Any:
        """A tree of arrays with a task axis of 1."""
        raise NotImplementedError

    def examples(self, rng: Any) -> list[tuple[Any, Any]]:
        """x and y of a task's support and of its query."""
        raise NotImplementedError

    def gflop(self, order: int) -> float:
        """Of the leanest algorithm known: 3 products for a layer's gradient, 6 more for its Hessian-vector product; the
        inputs need no gradient, which makes 2 and 2 of them in the first layer."""
        first, *others = self.products()
        hessian = order == 2
        support = (3 + 6 * hessian) * sum(others) + (2 + 2 * hessian) * first
        query = 3 * sum(others) + 2 * first
        return self.tasks * (self.steps * self.support * support + self.query * query) / 1e9

    def data(self, dtype: Any, tasks: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Parameters, support and query: the same numbers in both dtypes, the same tasks however many there are."""
        parts = [self.examples(np.random.default_rng((0, task))) for task in range(tasks)]
        sets = []
        for part in zip(*parts, strict=True):
            x, y = (np.stack(arrays) for arrays in zip(*part, strict=True))
            sets.append({"x": rounded(x, dtype), "y": y if y.dtype.kind == "i" else rounded(y, dtype)})
        return rounded(self.parameters(np.random.default_rng(0)), dtype), *sets


@dataclass(frozen=True, kw_only=True)
class Sinusoids(Workload):
    """Regression of sine curves: two hidden layers with ReLU, mean squared error."""

    def products(self) -> list[float]:
        return [2.0 * i * o for i, o in self.layers()]

    def layers(self) -> list[tuple[int, int]]:
        return list(pairwise([1, self.width, self.width, 1]))

    def parameters(self, rng: Any) -> Any:
        return [{"b": _normal(rng, 0.1, 1, o), "w": _normal(rng, math.sqrt(2 / i), i, o)} for i, o in self.layers()]

    def examples(self, rng: Any) -> list[tuple[Any, Any]]:
        amplitude, phase = rng.uniform(0.1, 5), rng.uniform(0, math.pi)
        xs = [rng.uniform(-5, 5, (size, 1)) for size in (self.support, self.query)]
        return [(x, amplitude * np.sin(x + phase)) for x in xs]


@dataclass(frozen=True, kw_only=True)
class Sequences(Workload):
    """Each task is a leaky sum of a sequence: a recurrent layer with tanh and a linear one on its last state."""

    length: int

    def products(self) -> list[float]:
        return [2.0 * self.length * self.width, 2.0 * (self.length - 1) * self.width**2 + 2 * self.width]

    def parameters(self, rng: Any) -> Any:
        return {
            "bias": np.zeros((1, 1, 1)),
            "in": _normal(rng, 0.5, 1, self.width),
            "out": _normal(rng, 0.3, self.width, 1),
            "state": 0.5 * np.eye(self.width) + _normal(rng, 0.05, self.width, self.width),
        }

    def examples(self, rng: Any) -> list[tuple[Any, Any]]:
        weights = rng.uniform(-0.9, 0.9) ** np.arange(self.length)[::-1]
        xs = [rng.normal(0, 0.5, (size, self.length)) for size in (self.support, self.query)]
        return [(x, (x @ weights)[:, None]) for x in xs]


@dataclass(frozen=True, kw_only=True)
class Images(Workload):
    """Classification: four layers [conv3x3, no bias -> batch-norm -> ReLU], with stride 2 or each followed by a 2x2
    max-pool, and a linear one on the mean or on all of what is left; the mean cross-entropy."""

    image: tuple[int, int, int]
    pooled: bool

    def products(self) -> list[float]:
        return [2.0 * p * q * 9 * i * o for _, (p, q), i, o in self.layers()]

    def layers(self) -> list[tuple[tuple[int, int], tuple[int, int], int, int]]:
        """(size of the images that come in, of the convolution's results, channels in, channels out) of each layer."""
        results, size = [], self.image[:2]
        for i, o in pairwise([self.image[2], *[self.width] * 4]):
            halved = (size[0] // 2, size[1] // 2) if self.pooled else (math.ceil(size[0] / 2), math.ceil(size[1] / 2))
            results.append((size, size if self.pooled else halved, i, o))
            size = halved
        return results

    def features(self) -> int:
        """How many numbers the linear layer takes."""
        return self.width * (self.image[0] // 16) * (self.image[1] // 16) if self.pooled else self.width

    def parameters(self, rng: Any) -> Any:
        layers = [
            {
                "beta": _normal(rng, 0.1, o),
                "gamma": 1 + _normal(rng, 0.1, o),
                "w": _normal(rng, math.sqrt(2 / (9 * i)), 3, 3, i, o),
            }
            for _, _, i, o in self.layers()
        ]
        head = {
            "b": _normal(rng, 0.1, 1, self.ways),
            "w": _normal(rng, 0.1 * self.features() ** -0.5, self.features(), self.ways),
        }
        return {"head": head, "hidden": layers}

    def examples(self, rng: Any) -> list[tuple[Any, Any]]:
        """For each class a pattern of 7x7 squares, with noise."""
        patterns = rng.random((self.ways, 7, 7, self.image[2]))
        patterns = patterns.repeat(self.image[0] // 7, 1).repeat(self.image[1] // 7, 2)
        results = []
        for size in (self.support, self.query):
            shots = size // self.ways
            x = 0.8 * patterns.repeat(shots, 0) + 0.2 * rng.random((size, *self.image))
            results.append((x, np.arange(self.ways).repeat(shots)))
        return results


def leaves(params: Any) -> Iterator[Any]:
    """The arrays of a tree in the order in which tinymaml and JAX flatten it: keys sorted."""
    if isinstance(params, dict | list):
        for part in [params[key] for key in sorted(params)] if isinstance(params, dict) else params:
            yield from leaves(part)
    else:
        yield params


def same(size: int, stride: int) -> tuple[int, int]:
    """The zeros that SAME adds before and after, as TensorFlow counts them, for a kernel of 3."""
    total = max((math.ceil(size / stride) - 1) * stride + 3 - size, 0)
    return total // 2, total - total // 2


def _normal(rng: Any, scale: float, *shape: int) -> Any:
    return scale * rng.normal(size=(1, *shape))


def rounded(params: Any, dtype: Any) -> Any:
    """Numbers of float32 in any dtype."""
    if isinstance(params, dict):
        return {key: rounded(part, dtype) for key, part in params.items()}
    if isinstance(params, list):
        return [rounded(part, dtype) for part in params]
    return params.astype(np.float32).astype(dtype)


_LOOPS = ("torch-loop", "learn2learn", "higher", "torchopt")
_W2A = Images(
    title="Omniglot 5-way 1-shot, 1 query image a class",
    image=(28, 28, 1),
    width=64,
    pooled=False,
    ways=5,
    tasks=32,
    support=5,
    query=5,
    steps=1,
    alpha=0.4,
    peers=("jax-tuned", "jax-plain", "torch-vmap", *_LOOPS),
)

# The usual peers leave out what is hopelessly slow on a workload (JAX's own convolution, compiling for minutes), or too
# large (vmap, 8 GB).
WORKLOADS: dict[str, Workload] = {
    "W1": Sinusoids(
        title="sinusoids, MLP 1-40-40-1, 10 support and 10 query points",
        width=40,
        tasks=25,
        support=10,
        query=10,
        steps=1,
        alpha=0.01,
        peers=("jax-tuned", "jax-plain", "torch-vmap", "torch-compile", *_LOOPS),
    ),
    "W2a": _W2A,
    "W2b": replace(
        _W2A,
        title="Omniglot 5-way 1-shot, 15 query images a class",
        query=75,
        peers=("jax-tuned", "torch-vmap", "torch-loop", "learn2learn"),
    ),
    "W3": replace(
        _W2A,
        title="Omniglot 20-way 1-shot, 1 query image a class",
        ways=20,
        tasks=16,
        support=20,
        query=20,
        steps=5,
        alpha=0.1,
        peers=("jax-tuned", "torch-vmap", "torch-loop", "learn2learn"),
    ),
    "W4": Images(
        title="MiniImagenet 5-way 1-shot, 15 query images a class",
        image=(84, 84, 3),
        width=32,
        pooled=True,
        ways=5,
        tasks=4,
        support=5,
        query=75,
        steps=5,
        alpha=0.01,
        peers=("jax-tuned", "torch-loop", "learn2learn"),
    ),
}
