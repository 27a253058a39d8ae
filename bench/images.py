"""A meta-step of image classification: the networks for Omniglot and MiniImagenet, on made-up images of their sizes.

Beside it in the same rounds: what JAX and PyTorch need for it, the drawing of a meta-batch of episodes, and the
machine's own product of matrices, from which the floor follows.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.timing import table
from bench.worker import Worker, cores
from bench.workloads import RATE, WORKLOADS, Workload, data

FLOAT64_TASKS = 2  # on these the float64 meta-gradients are compared, on all of them the float32 ones
# Largest difference of the meta-gradients, in the norm of each array. A ReLU whose input rounds to the other side of 0
# makes a finite one, and among millions some do: in float32 each implementation is up to .01 from the one in float64.
TOLERANCE = {"float64": 1e-8, "float32": 3e-2}
PRODUCT = 2048  # rows and columns of the matrices whose product is the machine's measure
PAUSE = 0.1  # seconds before an implementation's turn
SLOW = 2000.0  # an implementation that takes more milliseconds than this sits some rounds out

Step = Callable[[], Any]


class Implementation(NamedTuple):
    """`maker(workload, params, support, query, order)` gives (the meta-gradient as a list of arrays in the order of our
    leaves, a whole meta-step), both functions of nothing, in a process with these settings."""

    title: str
    how: str
    maker: str
    settings: dict[str, str]


_THREADS = str(cores())
# What is freed stays with the process: PyTorch would fault in large activations again and again.
_MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(8 << 30), "MALLOC_TOP_PAD_": str(256 << 20)}

OURS = Implementation(
    "tinymaml, eager",
    "device.keep_memory()",
    "bench.images:ours",
    {"TINYMAML_THREADS": _THREADS, "OPENBLAS_NUM_THREADS": "1"},
)
PEERS = {
    "jax-tuned": Implementation(
        "JAX, the fastest formulation known",
        "jit; im2col and one product a layer, the walk back by linearize, scan over tasks in shard_map over devices",
        "bench.peers_jax_images:tuned",
        {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={_THREADS}"},
    ),
    "jax-plain": Implementation(
        "JAX, vmap of lax.conv (as users write it)",
        "jit of grad of vmap of grad",
        "bench.peers_jax_images:plain",
        {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
    ),
    "torch-vmap": Implementation(
        "PyTorch, torch.func vmap of grad",
        "grad of vmap of grad, batch-norm written by hand, fused Adam",
        "bench.peers_torch_images:by_vmap",
        {"OMP_NUM_THREADS": _THREADS, **_MALLOC},
    ),
    "torch-loop": Implementation(
        "PyTorch, loop over tasks (as users write it)",
        "autograd.grad with create_graph, F.batch_norm, fused Adam",
        "bench.peers_torch_images:by_loop",
        {"OMP_NUM_THREADS": _THREADS, **_MALLOC},
    ),
}


def ours(w: Workload, params: Any, support: Any, query: Any, order: int) -> tuple[Step, Step]:
    from tinymaml import maml, nets, optim, softmax_cross_entropy, tree
    from tinymaml.device import keep_memory

    keep_memory()
    downsample = "max-pool" if w.pooled else "stride"
    model = nets.conv_net(w.image, w.ways, w.filters, downsample=downsample, bias=False)
    optimiser = optim.adam(RATE)
    state = optimiser.init(params)

    def loss(params: Any, batch: Any) -> Any:
        return softmax_cross_entropy(model.apply(params, batch["x"]), batch["y"])

    def gradient() -> Any:
        return maml.meta_value_and_grad(loss, params, support, query, w.alpha, w.steps, order=order)[1]

    return lambda: tree.leaves(gradient()), lambda: optimiser.update(gradient(), state, params)


class MetaStep:
    """One implementation of a workload, in its process."""

    def __init__(self, workload: str, order: int, maker: str) -> None:
        self._workload, self._order = WORKLOADS[workload], order
        module, name = maker.split(":")
        self._maker = getattr(importlib.import_module(module), name)

    def _made(self, dtype: str, tasks: int) -> tuple[Step, Step]:
        return self._maker(self._workload, *data(self._workload, np.dtype(dtype), tasks), self._order)

    def gradient(self, dtype: str, path: str) -> None:
        """Write the meta-gradient's arrays: in float64 of some tasks, in float32 of all."""
        gradient, _ = self._made(dtype, FLOAT64_TASKS if dtype == "float64" else self._workload.tasks)
        np.savez(path, *gradient())

    @cached_property
    def _step(self) -> Step:
        return self._made("float32", self._workload.tasks)[1]

    def step(self) -> float:
        """Milliseconds of one meta-step."""
        return milliseconds(self._step)

    def peak(self) -> int:
        """The most memory that this process had, MB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class Product:
    """The machine's own measure: a product of two matrices in NumPy's BLAS."""

    def __init__(self) -> None:
        self._a = np.random.default_rng(0).random((3, PRODUCT, PRODUCT), np.float32)

    def step(self) -> float:
        return milliseconds(lambda: np.matmul(self._a[0], self._a[1], out=self._a[2]))


class Drawing:
    """The drawing of a meta-batch of episodes, from as many made-up images as Omniglot or MiniImagenet train on."""

    def __init__(self, workload: str) -> None:
        from tinymaml.tasks import imageset

        self._workload = w = WORKLOADS[workload]
        classes, each = (64, 600) if w.pooled else (1200, 20)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (classes * each, *w.image), np.uint8)
        names = [str(c) for c in range(classes)]
        self._images = imageset.ImageSet("made-up", "train", images, np.arange(classes + 1) * each, names, False)
        self._next = 0

    def step(self) -> float:
        from tinymaml.tasks import episodes

        w, first = self._workload, self._next
        self._next += w.tasks
        sizes = {"ways": w.ways, "shots": w.support // w.ways, "queries": w.query // w.ways}
        return milliseconds(
            lambda: episodes.sample(self._images, 0, "train", first, w.tasks, **sizes, rotations=not w.pooled)
        )


def milliseconds(function: Any) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def differences(workload: str, order: int, asked: Sequence[Implementation]) -> dict[str, float]:
    """For each dtype the largest difference of a meta-gradient from the first one's, relative to the norm of the array.

    In processes of their own, so that the memory of those that are timed is theirs. Raises SystemExit if one differs.
    """
    found: dict[str, list[Any]] = {dtype: [] for dtype in TOLERANCE}
    for one in asked:
        with tempfile.TemporaryDirectory() as folder, _worker(workload, order, one) as worker:
            for dtype in TOLERANCE:
                path = Path(folder) / f"{dtype}.npz"
                worker.ask("gradient", dtype, str(path))
                with np.load(path) as arrays:
                    found[dtype].append([arrays[key] for key in arrays.files])
    worst = dict.fromkeys(TOLERANCE, 0.0)
    for dtype, tolerance in TOLERANCE.items():
        for one, grads in zip(asked, found[dtype], strict=True):
            errors = [_distance(a, b) for a, b in zip(found[dtype][0], grads, strict=True)]
            if not max(errors) <= tolerance:
                which = f"array {int(np.argmax(errors))} by {max(errors):.1e} (allowed: {tolerance})"
                raise SystemExit(f"{one.title}: its {dtype} meta-gradient differs in {which}: nothing is timed")
            worst[dtype] = max(worst[dtype], *errors)
    return worst


def _worker(workload: str, order: int, one: Implementation) -> Worker:
    return Worker("bench.images:MetaStep", (workload, order, one.maker), one.settings)


def _distance(a: Any, b: Any) -> float:
    if a.shape != b.shape:
        raise SystemExit(f"a meta-gradient has arrays of the shape {b.shape}, the first one's are {a.shape}")
    return float(np.linalg.norm((a - b).ravel().astype(np.float64)) / np.linalg.norm(a.ravel().astype(np.float64)))


def chosen(workload: str, peers: Sequence[str] | None) -> dict[str, Implementation]:
    """The peers that were asked for and are installed: by name, or a framework's usual ones for this workload."""
    usual, found = WORKLOADS[workload].peers, {}
    for name, peer in PEERS.items():
        framework = name.partition("-")[0]
        asked = name in usual if peers is None else name in peers or (name in usual and framework in peers)
        if asked and importlib.util.find_spec(framework):
            found[name] = peer
    return found


def run(rounds: int, workloads: Sequence[str], peers: Sequence[str] | None, orders: Sequence[int]) -> None:
    """Time workloads beside `peers`: names in PEERS, "jax" or "torch"; None: the usual ones."""
    for workload in workloads:
        for order in orders:
            _run(workload, order, [OURS, *chosen(workload, peers).values()], rounds)


def _run(workload: str, order: int, asked: Sequence[Implementation], rounds: int) -> None:
    w = WORKLOADS[workload]
    worst = differences(workload, order, asked)
    with ExitStack() as stack:
        workers = {one.title: stack.enter_context(_worker(workload, order, one)) for one in asked}
        others = {
            "drawing a meta-batch of episodes": Worker("bench.images:Drawing", (workload,), {}),
            "product": Worker("bench.images:Product", (), {"OPENBLAS_NUM_THREADS": _THREADS}),
        }
        for worker in others.values():
            stack.enter_context(worker)
        times = _interleaved(workers | others, rounds)
        peaks = {name: worker.ask("peak") for name, worker in workers.items()}
    gflop, product = w.gflop(order), times.pop("product")
    times[f"floor: {gflop:.1f} GFLOP at the rate of sgemm"] = product * gflop / (2e-9 * PRODUCT**3)
    rate = 2e-6 * PRODUCT**3 / np.median(product)
    agreement = f"{worst['float64']:.0e} in float64 ({FLOAT64_TASKS} tasks), {worst['float32']:.0e} in float32 (all)"
    table(
        f"{workload}, meta-step, {w.title}; order {order}, {w.tasks} tasks, inner steps: {w.steps}, float32\n"
        f"gradients agree to {agreement}; sgemm {PRODUCT}: {rate:.0f} GFLOP/s on {cores()} cores",
        times,
    )
    for one in asked:
        settings = " ".join(f"{key}={value}" for key, value in one.settings.items() if value)
        print(f"  {one.title}: {len(times[one.title])} rounds, {peaks[one.title]} MB at most; {one.how}; {settings}")


def _interleaved(workers: dict[str, Worker], rounds: int) -> dict[str, Any]:
    """Milliseconds of every round; two are not counted, and those that are slow sit some rounds out.

    Each turn begins with a pause, as threads of the one before it may still spin for a while (OpenBLAS's do for tens
    of milliseconds), and is a pair of steps of which the second counts: the one before it has taken the caches.
    """
    for worker in workers.values():
        worker.ask("step")
    first = {name: worker.ask("step") for name, worker in workers.items()}
    every = {name: 1 if ms < SLOW else min(math.ceil(ms / 1000), max(1, rounds // 3)) for name, ms in first.items()}
    times: dict[str, list[float]] = {name: [] for name in workers}
    for r in range(rounds):
        for name, worker in workers.items():
            if r % every[name] == 0:
                time.sleep(PAUSE)
                if first[name] < SLOW:
                    worker.ask("step")
                times[name].append(worker.ask("step"))
    return {name: np.array(values) for name, values in times.items()}
