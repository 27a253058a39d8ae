"""The workloads in PyTorch: torch.func's vmap of grad, the same compiled, and the loop over tasks that users write.

Batch-norm is written by hand under vmap: in torch 2.13 grad of vmap of grad through the native one, with a scale and
a shift for each task, is silently wrong (by 2e-4 of .1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from bench.workloads import DEVICE, EPSILON, PRECISION, RATE, Images, Sequences, Workload, leaves, same

Made = tuple[Callable[[], Any], Callable[[], Any]]

if DEVICE == "gpu":
    torch.set_default_device("cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = PRECISION == "tf32"
    torch.backends.cudnn.benchmark = True  # the fastest of cuDNN's algorithms


def _wait() -> None:
    """Until the GPU, if there is one, has done what it was asked."""
    if DEVICE == "gpu":
        torch.cuda.synchronize()


def loss_of(w: Workload, native: bool) -> Callable[[Sequence[Any], Any, Any], Any]:
    """`loss(params, x, y)` of one task, with PyTorch's own batch-norm or one that vmap is right about."""
    if isinstance(w, Sequences):
        return _recurrent
    if isinstance(w, Images):
        return partial(_images, pooled=w.pooled, norm=_native if native else _norm)
    return _mlp


def _mlp(params: Sequence[Any], x: Any, y: Any) -> Any:
    for k in range(0, len(params), 2):
        x = x @ params[k + 1] + params[k]
        x = torch.relu(x) if k + 2 < len(params) else x
    return ((x - y) ** 2).mean()


def _recurrent(params: Sequence[Any], x: Any, y: Any) -> Any:
    bias, by_input, out, by_state = params
    h = torch.tanh(x[:, :1] @ by_input)
    for t in range(1, x.shape[1]):
        h = torch.tanh(x[:, t : t + 1] @ by_input + h @ by_state)
    return ((h @ out + bias - y) ** 2).mean()


def _norm(x: Any, gamma: Any, beta: Any) -> Any:
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (x - mean) * (gamma[:, None, None] * torch.rsqrt(variance + EPSILON)) + beta[:, None, None]


def _native(x: Any, gamma: Any, beta: Any) -> Any:
    return F.batch_norm(x, None, None, gamma, beta, training=True, eps=EPSILON)


def _images(params: Sequence[Any], x: Any, y: Any, pooled: bool, norm: Any) -> Any:
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


def parameters(params: Any) -> list[Any]:
    """A tree's arrays as PyTorch has them, without the task axis, channels first."""
    arrays = [p[0] for p in leaves(params)]
    return [torch.tensor(np.ascontiguousarray(a.transpose(3, 2, 0, 1) if a.ndim == 4 else a)) for a in arrays]


def _ours(tensors: Sequence[Any]) -> list[Any]:
    """What `parameters` takes apart, as our leaves."""
    arrays = [t.detach().cpu().numpy() for t in tensors]
    return [(a.transpose(2, 3, 1, 0) if a.ndim == 4 else a)[None] for a in arrays]


def batches(*sets: Any) -> list[Any]:
    """x and y of each set, channels first."""
    xs = [np.moveaxis(s["x"], -1, 2) if s["x"].ndim == 5 else s["x"] for s in sets]
    pairs = [(torch.tensor(np.ascontiguousarray(x)), torch.tensor(s["y"])) for x, s in zip(xs, sets, strict=True)]
    return [tensor for pair in pairs for tensor in pair]


def made(flat: Sequence[Any], gradient: Callable[[], Any]) -> Made:
    """(the meta-gradient's leaves in our layout, a whole meta-step)."""
    moved = [torch.nn.Parameter(p.clone()) for p in flat]
    adam = torch.optim.Adam(moved, RATE, fused=True)

    def step() -> None:
        for p, g in zip(moved, gradient(), strict=True):
            p.grad = g
        adam.step()
        _wait()

    return lambda: _ours(gradient()), step


def by_vmap(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    flat, batch, gradient = parameters(params), batches(support, query), _by_vmap(w, order)
    return made(flat, lambda: gradient(tuple(flat), *batch))


def compiled(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    flat, batch, gradient = parameters(params), batches(support, query), torch.compile(_by_vmap(w, order))
    return made(flat, lambda: gradient(tuple(flat), *batch))


def as_compiled(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    """`by_vmap` through the compiler, whose kernels are captured in CUDA graphs."""
    flat, batch = parameters(params), batches(support, query)
    gradient = torch.compile(_by_vmap(w, order), mode="reduce-overhead")
    return made(flat, lambda: gradient(tuple(flat), *batch))


def by_graph(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    """`by_vmap` and Adam, captured as one CUDA graph without compiling anything."""
    flat, batch, gradient = parameters(params), batches(support, query), _by_vmap(w, order)
    moved = [torch.nn.Parameter(p.clone()) for p in flat]
    adam = torch.optim.Adam(moved, RATE, fused=True, capturable=True)

    def once() -> None:
        for p, g in zip(moved, gradient(tuple(flat), *batch), strict=True):
            p.grad = g
        adam.step()

    @cache
    def graph() -> Any:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # so that nothing is loaded, chosen or allocated first while it captures
            for _ in range(3):
                once()
        torch.cuda.current_stream().wait_stream(stream)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            once()
        return captured

    def step() -> None:
        graph().replay()
        _wait()

    return lambda: _ours(gradient(tuple(flat), *batch)), step


def _by_vmap(w: Workload, order: int) -> Callable[..., Any]:
    loss = loss_of(w, native=False)

    def task(params: Any, xs: Any, ys: Any, xq: Any, yq: Any) -> Any:
        phi = params
        for _ in range(w.steps):
            grads = grad(loss)(phi, xs, ys)
            grads = tuple(g.detach() for g in grads) if order == 1 else grads
            phi = tuple(p - w.alpha * g for p, g in zip(phi, grads, strict=True))
        return loss(phi, xq, yq)

    return grad(lambda p, *b: vmap(task, (None, 0, 0, 0, 0))(p, *b).mean())


def by_loop(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    flat, batch, loss = parameters(params), batches(support, query), loss_of(w, native=True)
    theta = [p.requires_grad_() for p in flat]

    def task(xs: Any, ys: Any, xq: Any, yq: Any) -> Any:
        phi = theta
        for _ in range(w.steps):
            grads = torch.autograd.grad(loss(phi, xs, ys), phi, create_graph=order == 2)
            phi = [p - w.alpha * g for p, g in zip(phi, grads, strict=True)]
        return torch.autograd.grad(loss(phi, xq, yq) / len(batch[0]), theta)

    return made([p.detach() for p in flat], lambda: summed(task, batch))


def summed(task: Callable[..., Any], batch: Sequence[Any]) -> Any:
    """The sum over tasks of the gradients that `task` gives for each."""
    totals = None
    for one in zip(*batch, strict=True):
        grads = task(*one)
        totals = grads if totals is None else torch._foreach_add(totals, grads)
    return totals


def products(w: Workload, params: Any, batch: Any, v: Any) -> dict[str, Callable[[], list[Any]]]:
    """The gradient of one task's loss, Hessian-vector products and both together; their leaves."""
    x, tangent = tuple(parameters(params)), tuple(parameters(v))
    xs, ys = (b[0] for b in batches(batch))
    loss = loss_of(w, native=False)  # the native batch-norm has no forward mode

    def gradient(x: Any) -> Any:
        return grad(loss)(x, xs, ys)

    def forward() -> Any:
        return torch.func.jvp(gradient, (x,), (tangent,))

    def reverse() -> Any:
        g, pullback = torch.func.vjp(gradient, x)
        return g, pullback(tangent)[0]

    def over_forward() -> Any:
        return grad(lambda x: torch.func.jvp(lambda x: loss(x, xs, ys), (x,), (tangent,))[1])(x)

    return {
        "gradient": lambda: _ours(gradient(x)),
        "forward-over-reverse": lambda: _ours(forward()[1]),
        "reverse-over-reverse": lambda: _ours(reverse()[1]),
        "reverse-over-forward": lambda: _ours(over_forward()),
        "gradient and product": lambda: [a for part in forward() for a in _ours(part)],
    }
