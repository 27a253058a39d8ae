"""The same computations in PyTorch: torch.func's vmap of grad, and the loop over tasks that its users write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.func import grad, vmap

torch.set_num_threads(1)


def _tensors(params: Any, support: Any, query: Any) -> tuple[tuple[Any, ...], list[Any]]:
    flat = tuple(torch.tensor(layer[key][0]) for layer in params for key in ("b", "w"))
    return flat, [torch.tensor(batch[key]) for batch in (support, query) for key in ("x", "y")]


def mlp(params: Sequence[Any], x: Any) -> Any:
    for k in range(0, len(params), 2):
        x = x @ params[k + 1] + params[k]
        x = torch.relu(x) if k + 2 < len(params) else x
    return x


def loss(params: Sequence[Any], x: Any, y: Any) -> Any:
    return ((mlp(params, x) - y) ** 2).mean()


def _with_adam(params: tuple[Any, ...], gradient: Callable[[], Any], rate: float) -> tuple[Callable[[], Any], Any]:
    leaves = [torch.nn.Parameter(p.clone()) for p in params]
    adam = torch.optim.Adam(leaves, rate, fused=True)

    def step() -> None:
        for p, g in zip(leaves, gradient(), strict=True):
            p.grad = g
        adam.step()

    return lambda: [g.detach().numpy()[None] for g in gradient()], step


def metastep(
    params: Any, support: Any, query: Any, order: int, alpha: float, rate: float
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    flat, batch = _tensors(params, support, query)

    def task(params: Any, xs: Any, ys: Any, xq: Any, yq: Any) -> Any:
        grads = grad(loss)(params, xs, ys)
        grads = tuple(g.detach() for g in grads) if order == 1 else grads
        return loss([p - alpha * g for p, g in zip(params, grads, strict=True)], xq, yq)

    gradient = grad(lambda p, *b: vmap(task, (None, 0, 0, 0, 0))(p, *b).mean())
    return _with_adam(flat, lambda: gradient(flat, *batch), rate)


def loop(
    params: Any, support: Any, query: Any, order: int, alpha: float, rate: float
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    flat, batch = _tensors(params, support, query)
    leaves = [p.requires_grad_() for p in flat]

    def gradient() -> Any:
        total = 0
        for xs, ys, xq, yq in zip(*batch, strict=True):
            grads = torch.autograd.grad(loss(leaves, xs, ys), leaves, create_graph=order == 2)
            total = total + loss([p - alpha * g for p, g in zip(leaves, grads, strict=True)], xq, yq)
        return torch.autograd.grad(total / len(batch[0]), leaves)

    return _with_adam(tuple(p.detach() for p in flat), gradient, rate)


def hvp(function: Any, x: Sequence[Any], v: Sequence[Any]) -> dict[str, Callable[[], Any]]:
    primals, tangents = tuple(torch.tensor(a) for a in x), tuple(torch.tensor(a) for a in v)
    return {
        "PyTorch, forward over reverse": lambda: torch.func.jvp(grad(function), (primals,), (tangents,))[1],
        "PyTorch, reverse over reverse": lambda: torch.func.vjp(grad(function), primals)[1](tangents)[0],
    }
