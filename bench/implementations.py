"""The implementations of a meta-step that are compared: ours and the peers', each with a process's settings."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

from bench.worker import Worker, cores
from bench.workloads import WORKLOADS, Images


class Implementation(NamedTuple):
    """`maker(workload, params, support, query, order)` gives (the meta-gradient as a list of arrays in the order of our
    leaves, a whole meta-step), both functions of nothing, in a process with these settings."""

    name: str
    how: str
    maker: str
    needs: tuple[str, ...]  # modules, the framework first
    settings: dict[str, str]
    orders: tuple[int, ...] = (2, 1)

    def worker(self, workload: str, order: int, **changes: object) -> Worker:
        """A `bench.metastep.MetaStep` in its process."""
        return Worker("bench.metastep:MetaStep", (workload, order, self.maker, changes), self.settings)

    def explained(self) -> str:
        """A line about it."""
        settings = [f"{key}={value}" for key, value in self.settings.items() if value]
        return f"{self.name}: {self.how}; {' '.join(settings)}"


# What is freed stays with the process: PyTorch would fault in large activations again and again.
_MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(8 << 30), "MALLOC_TOP_PAD_": str(256 << 20)}


def implementations(workload: str) -> dict[str, Implementation]:
    """All of them by name, with the settings that are the fastest for this workload."""
    small = not isinstance(WORKLOADS[workload], Images)
    ours = {"TINYMAML_THREADS": str(cores()), "OPENBLAS_NUM_THREADS": "1"}
    torch = {"OMP_NUM_THREADS": "1" if small else str(cores()), **_MALLOC}
    jax = {"JAX_PLATFORMS": "cpu"}
    serial, devices = "--xla_cpu_multi_thread_eigen=false", f"--xla_force_host_platform_device_count={cores()}"
    by_loop = "a loop over tasks, F.batch_norm, fused Adam"
    every = [
        Implementation(
            "tinymaml-replay", "recorded once, replayed; keep_memory()", "bench.ours:ours_replayed", ("tinymaml",), ours
        ),
        Implementation("tinymaml-eager", "keep_memory()", "bench.ours:ours_eager", ("tinymaml",), ours),
        Implementation(
            "tinymaml-numpy",
            "recorded once, replayed; without Numba",
            "bench.ours:ours_replayed",
            ("tinymaml",),
            {**ours, "TINYMAML_NUMBA": "0"},
        ),
        Implementation(
            "jax-tuned",
            "the fastest formulation known: jit of grad of vmap of grad"
            if small
            else "the fastest formulation known: jit; im2col and one product a layer, the walk back by linearize, scan "
            "over tasks in shard_map over devices",
            "bench.peers.jax:tuned",
            ("jax",),
            {**jax, "XLA_FLAGS": serial if small else devices},
        ),
        Implementation(
            "jax-plain",
            "as users write it: jit of grad of vmap of grad, lax.conv",
            "bench.peers.jax:plain",
            ("jax",),
            {**jax, "XLA_FLAGS": ""},
        ),
        Implementation(
            "torch-vmap",
            "torch.func: grad of vmap of grad, batch-norm written by hand, fused Adam",
            "bench.peers.torch:by_vmap",
            ("torch",),
            torch,
        ),
        Implementation(
            "torch-compile",
            "torch.compile of torch-vmap's meta-gradient, nothing cached on disk",
            "bench.peers.torch:compiled",
            ("torch",),
            {**torch, "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"},
        ),
        Implementation(
            "torch-loop",
            f"as users write it: autograd.grad in {by_loop}",
            "bench.peers.torch:by_loop",
            ("torch",),
            torch,
        ),
        Implementation(
            "learn2learn",
            f"MAML in {by_loop}",
            "bench.peers.torch_libraries:by_learn2learn",
            ("torch", "learn2learn"),
            torch,
        ),
        Implementation(
            "higher",
            f"innerloop_ctx in {by_loop}",
            "bench.peers.torch_libraries:by_higher",
            ("torch", "higher"),
            torch,
        ),
        Implementation(
            "torchopt",
            f"MetaSGD in {by_loop}",
            "bench.peers.torch_libraries:by_torchopt",
            ("torch", "torchopt"),
            torch,
            (2,),  # it always makes the graph of the updates
        ),
    ]
    return {one.name: one for one in every}


OURS = ("tinymaml-replay", "tinymaml-eager")  # always; the rest of ours with all peers, or by name
NAMES = ("none", "jax", "torch", *[name for name in implementations("W1") if name not in OURS])


def chosen(workload: str, order: int, peers: Sequence[str] | None) -> tuple[list[Implementation], dict[str, str]]:
    """Ours and those peers that were asked for and are installed; and why the others are left out, by name.

    `peers`: `NAMES`, where a framework's name stands for its usual ones on this workload; None: all usual ones.
    """
    usual = WORKLOADS[workload].peers
    runnable, left_out = [], {}
    for name, one in implementations(workload).items():
        if name not in OURS:
            is_usual = name in usual or name == "tinymaml-numpy"
            if not (is_usual if peers is None else name in peers or (name in usual and one.needs[0] in peers)):
                continue
        missing = [module for module in one.needs if importlib.util.find_spec(module) is None]
        if missing:
            left_out[name] = f"{', '.join(missing)} not installed"
        elif order not in one.orders:
            left_out[name] = f"has no order {order}"
        else:
            runnable.append(one)
    return runnable, left_out
