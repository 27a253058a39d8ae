"""Image classification in PyTorch: torch.func's vmap of grad, and the loop over tasks that its users write.

Batch-norm is written by hand under vmap: in torch 2.13 grad of vmap of grad through the native one, with a scale and
a shift for each task, is silently wrong (by 2e-4 of .1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from bench.workloads import EPSILON, RATE, Workload, same

Made = tuple[Callable[[], Any], Callable[[], Any]]


def _norm(x: Any, gamma: Any, beta: Any) -> Any:
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (x - mean) * (gamma[:, None, None] * torch.rsqrt(variance + EPSILON)) + beta[:, None, None]


def _native(x: Any, gamma: Any, beta: Any) -> Any:
    return F.batch_norm(x, None, None, gamma, beta, training=True, eps=EPSILON)


def _loss(params: Sequence[Any], x: Any, y: Any, pooled: bool, norm: Any) -> Any:
    bias, head, *rest = params
    for beta, gamma, weight in zip(*[iter(rest)] * 3, strict=True):
        if pooled:
            x = F.max_pool2d(torch.relu(norm(F.conv2d(x, weight, padding=1), gamma, beta)), 2)
        else:
            top, bottom = same(x.shape[-1], 2)
            if top == bottom:
                x = F.conv2d(x, weight, stride=2, padding=top)
            else:
                x = F.conv2d(F.pad(x, (top, bottom, top, bottom)), weight, stride=2)
            x = torch.relu(norm(x, gamma, beta))
    x = x.permute(0, 2, 3, 1).flatten(1) if pooled else x.mean((2, 3))
    return F.cross_entropy(x @ head + bias, y)


def _tensors(params: Any, support: Any, query: Any) -> tuple[list[Any], list[Any]]:
    """Parameters and data as PyTorch has them, channels first."""
    flat = [torch.tensor(params["head"][key][0]) for key in ("b", "w")]
    for layer in params["hidden"]:
        w = np.ascontiguousarray(layer["w"][0].transpose(3, 2, 0, 1))
        flat += [torch.tensor(layer["beta"][0]), torch.tensor(layer["gamma"][0]), torch.tensor(w)]
    batch = []
    for b in (support, query):
        batch += [torch.tensor(np.ascontiguousarray(np.moveaxis(b["x"], -1, 2))), torch.tensor(b["y"])]
    return flat, batch


def _made(flat: Sequence[Any], gradient: Callable[[], Any]) -> Made:
    """(the meta-gradient in our layout, a whole meta-step)."""
    leaves = [torch.nn.Parameter(p.clone()) for p in flat]
    adam = torch.optim.Adam(leaves, RATE, fused=True)

    def ours() -> list[Any]:
        found = [g.detach().numpy() for g in gradient()]
        return [(g.transpose(2, 3, 1, 0) if g.ndim == 4 else g)[None] for g in found]

    def step() -> None:
        for p, g in zip(leaves, gradient(), strict=True):
            p.grad = g
        adam.step()

    return ours, step


def by_vmap(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    flat, batch = _tensors(params, support, query)

    def loss(params: Any, x: Any, y: Any) -> Any:
        return _loss(params, x, y, w.pooled, _norm)

    def task(params: Any, xs: Any, ys: Any, xq: Any, yq: Any) -> Any:
        phi = params
        for _ in range(w.steps):
            grads = grad(loss)(phi, xs, ys)
            grads = tuple(g.detach() for g in grads) if order == 1 else grads
            phi = tuple(p - w.alpha * g for p, g in zip(phi, grads, strict=True))
        return loss(phi, xq, yq)

    gradient = grad(lambda p, *b: vmap(task, (None, 0, 0, 0, 0))(p, *b).mean())
    return _made(flat, lambda: gradient(tuple(flat), *batch))


def by_loop(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    flat, batch = _tensors(params, support, query)
    leaves = [p.requires_grad_() for p in flat]

    def gradient() -> Any:
        totals = None
        for xs, ys, xq, yq in zip(*batch, strict=True):
            phi = leaves
            for _ in range(w.steps):
                grads = torch.autograd.grad(_loss(phi, xs, ys, w.pooled, _native), phi, create_graph=order == 2)
                phi = [p - w.alpha * g for p, g in zip(phi, grads, strict=True)]
            found = torch.autograd.grad(_loss(phi, xq, yq, w.pooled, _native) / len(batch[0]), leaves)
            totals = found if totals is None else torch._foreach_add(totals, found)
        return totals

    return _made([p.detach() for p in flat], gradient)
