"""The loop over tasks in libraries for PyTorch: learn2learn, higher, TorchOpt, as their documentation writes it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

import torch

from bench.peers.torch import Made, batches, loss_of, made, parameters, summed
from bench.workloads import Workload


class Network(torch.nn.Module):
    """A workload's loss as a module, for libraries that swap a module's parameters."""

    def __init__(self, w: Workload, flat: Sequence[Any]) -> None:
        super().__init__()
        self._loss, self._names = loss_of(w, native=True), [f"p{i}" for i in range(len(flat))]
        for name, p in zip(self._names, flat, strict=True):
            self.register_parameter(name, torch.nn.Parameter(p.clone()))

    def forward(self, x: Any, y: Any) -> Any:
        return self._loss([getattr(self, name) for name in self._names], x, y)


def by_learn2learn(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    flat, batch = parameters(params), batches(support, query)
    network = Network(w, flat)
    theta = list(network.parameters())
    learner = _learn2learn_maml()(network, lr=w.alpha, first_order=order == 1)

    def task(xs: Any, ys: Any, xq: Any, yq: Any) -> Any:
        adapted = learner.clone()
        for _ in range(w.steps):
            adapted.adapt(adapted(xs, ys))
        return torch.autograd.grad(adapted(xq, yq) / len(batch[0]), theta)

    return made(flat, lambda: summed(task, batch))


def _learn2learn_maml() -> Any:
    """learn2learn's MAML alone: its packages also import gym and compiled parts, which no longer build."""
    for name in ("learn2learn", "learn2learn.algorithms"):
        spec = importlib.util.find_spec(name)
        sys.modules[name] = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    return importlib.import_module("learn2learn.algorithms.maml").MAML


def by_higher(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    import higher

    flat, batch = parameters(params), batches(support, query)
    network = Network(w, flat)
    inner = torch.optim.SGD(network.parameters(), w.alpha)

    def task(xs: Any, ys: Any, xq: Any, yq: Any) -> Any:
        with higher.innerloop_ctx(network, inner, copy_initial_weights=False, track_higher_grads=order == 2) as (
            adapted,
            optimiser,
        ):
            for _ in range(w.steps):
                optimiser.step(adapted(xs, ys))
            # Without higher gradients the adapted parameters are leaves: first-order MAML takes theirs.
            theta = list(adapted.parameters(time=0 if order == 2 else -1))
            return torch.autograd.grad(adapted(xq, yq) / len(batch[0]), theta)

    return made(flat, lambda: summed(task, batch))


def by_torchopt(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    import torchopt

    flat, batch = parameters(params), batches(support, query)
    network = Network(w, flat)
    theta = list(network.parameters())
    inner = torchopt.MetaSGD(network, lr=w.alpha)
    starts = [torchopt.extract_state_dict(part, by="reference") for part in (network, inner)]

    def task(xs: Any, ys: Any, xq: Any, yq: Any) -> Any:
        for _ in range(w.steps):
            inner.step(network(xs, ys))
        grads = torch.autograd.grad(network(xq, yq) / len(batch[0]), theta)
        for part, start in zip((network, inner), starts, strict=True):
            torchopt.recover_state_dict(part, start)
        return grads

    return made(flat, lambda: summed(task, batch))
