"""Gradients and Hessian-vector products of one task's loss, in each mode, beside JAX and PyTorch."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.implementations import implementations
from bench.output import Row
from bench.parts.frameworks import distance
from bench.timing import interleaved, spread, turn
from bench.worker import Worker
from bench.workloads import WORKLOADS, Sequences, Workload, rounded

NETWORKS: dict[str, Workload] = {
    "mlp": replace(WORKLOADS["W1"], title="MLP 1-40-40-1, 250 points", tasks=1, support=250),
    "conv": replace(WORKLOADS["W2a"], title="Omniglot's convolutional network, 25 images", tasks=1, support=25),
    "recurrent": Sequences(
        title="recurrent network of 32, 20 sequences of 10",
        tasks=1,
        support=20,
        query=20,
        length=10,
        width=32,
        steps=1,
        alpha=0.1,
    ),
}
FRAMEWORKS = {  # whose functions they are, and the settings of which implementation
    "tinymaml": ("bench.ours_products:eager", "tinymaml-eager"),
    "tinymaml-recorded": ("bench.ours_products:recorded", "tinymaml-replay"),
    "jax": ("bench.peers.jax:products", "jax-tuned"),
    "torch": ("bench.peers.torch:products", "torch-vmap"),
}
TOLERANCE = 1e-8  # largest relative difference in float64


class Products:
    """The functions of one framework on one network, in its process."""

    def __init__(self, network: str, maker: str) -> None:
        self._network = NETWORKS[network]
        module, name = maker.split(":")
        self._maker = getattr(importlib.import_module(module), name)
        self._functions = self._made("float32")

    def _made(self, dtype: str) -> dict[str, Callable[[], list[Any]]]:
        params, support, _ = self._network.data(np.dtype(dtype), 1)
        v = rounded(self._network.parameters(np.random.default_rng(1)), np.dtype(dtype))
        return self._maker(self._network, params, support, v)

    def compiled(self) -> list[str]:
        """The functions' names; each has run once."""
        for function in self._functions.values():
            function()
        return list(self._functions)

    def write(self, path: str) -> None:
        """What each function gives in float64, as one array."""
        results = {name: function() for name, function in self._made("float64").items()}
        np.savez(path, **{name: np.concatenate([np.ravel(a) for a in arrays]) for name, arrays in results.items()})

    def turn(self, name: str, warm: bool) -> float:
        return turn(self._functions[name], warm)


def run(rounds: int) -> list[Row]:
    return [row for network in NETWORKS for row in _run(network, rounds)]


def _run(network: str, rounds: int) -> list[Row]:
    installed = [name for name in FRAMEWORKS if importlib.util.find_spec(name.partition("-")[0])]
    small = network != "conv"
    known = implementations("W1" if small else "W2a")
    with ExitStack() as stack:
        workers = {}
        for framework in installed:
            maker, settings = FRAMEWORKS[framework]
            worker = Worker("bench.parts.hvp:Products", (network, maker), known[settings].settings)
            workers[framework] = stack.enter_context(worker)
        _compare(workers)
        turns = {
            (framework, name): partial(worker.ask, "turn", name)
            for framework, worker in workers.items()
            for name in worker.ask("compiled")
        }
        times = interleaved(turns, rounds)
    one = float(np.median(times["tinymaml", "gradient"]))
    print(f"\nHessian-vector products, {NETWORKS[network].title}, float32: {'':8} median ms   10 % - 90 %    gradients")
    rows = []
    for (framework, name), values in times.items():
        median, low, high = spread(values)
        print(f"{framework + ', ' + name:44}{median:12.3f}   {low:.3f} - {high:<10.3f}{median / one:7.2f}")
        timing = {"median_ms": median, "low_ms": low, "high_ms": high, "rounds": len(values)}
        rows.append({"part": "hvp", "network": network, "implementation": framework, "function": name, **timing})
    return rows


def _compare(workers: dict[str, Worker]) -> None:
    """Raises SystemExit if a result in float64 differs from ours."""
    by_framework = {}
    with tempfile.TemporaryDirectory() as folder:
        for framework, worker in workers.items():
            path = Path(folder) / "results.npz"
            worker.ask("write", str(path))
            with np.load(path) as arrays:
                by_framework[framework] = {name: arrays[name] for name in arrays.files}
    ours = by_framework["tinymaml"]
    for framework, results in by_framework.items():
        for name, result in results.items():
            like = "forward-over-reverse" if "-over-" in name else name
            error = distance([ours[like]], [result])
            if name != "finite-difference" and not error <= TOLERANCE:
                raise SystemExit(f"{framework}, {name}: it differs from ours by {error:.1e}: nothing is timed")
