"""The meta-step in tinymaml: eager, and recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import tinymaml as tm
from bench.workloads import PRECISION, RATE, Images, Sequences, Workload
from tinymaml import maml, nets, nn, optim, tree
from tinymaml.device import keep_memory, set_precision, to_device, to_host

Made = tuple[Callable[[], Any], Callable[[], Any]]


def loss_of(w: Workload) -> Callable[[Any, Any], Any]:
    """`loss(params, batch)`, one number a task."""
    if isinstance(w, Sequences):
        return _recurrent
    if isinstance(w, Images):
        downsample = "max-pool" if w.pooled else "stride"
        network = nets.conv_net(w.image, w.ways, w.width, downsample=downsample, bias=False)
        return lambda params, batch: tm.softmax_cross_entropy(network.apply(params, batch["x"]), batch["y"])
    model = nn.mlp([1, w.width, w.width, 1])
    return lambda params, batch: tm.mse(model.apply(params, batch["x"]), batch["y"])


def _recurrent(params: Any, batch: Any) -> Any:
    x = batch["x"]
    h = tm.tanh(tm.dense(x[:, :, :1], params["in"]))
    for t in range(1, x.shape[2]):
        h = tm.tanh(tm.dense(x[:, :, t : t + 1], params["in"]) + tm.dense(h, params["state"]))
    return tm.mse(tm.dense(h, params["out"], params["bias"]), batch["y"])


def _gradient_of(w: Workload, order: int) -> Callable[[Any, Any, Any], Any]:
    loss = loss_of(w)

    def gradient(params: Any, support: Any, query: Any) -> Any:
        _, grads = maml.meta_value_and_grad(
            loss, params, support, query, w.alpha, w.steps, order=order, records=w.records
        )
        return grads

    return gradient


def ours_eager(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    """(the meta-gradient's leaves, a whole meta-step), functions of nothing."""
    keep_memory()
    gradient, optimiser = _gradient_of(w, order), optim.adam(RATE)
    state = optimiser.init(params)
    return (
        lambda: tree.leaves(gradient(params, support, query)),
        lambda: optimiser.update(gradient(params, support, query), state, params),
    )


def ours_replayed(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    """As `ours_eager`; what is recorded is recorded at the first call."""
    keep_memory()
    gradient, optimiser = _gradient_of(w, order), optim.adam(RATE)
    state = optimiser.init(params)

    def step(params: Any, state: Any, support: Any, query: Any) -> Any:
        return optimiser.update(gradient(params, support, query), state, params)

    @cache
    def program() -> Any:
        return tm.record(step, params, state, support, query)

    return (
        lambda: tree.leaves(tm.record(gradient, params, support, query)(params, support, query)),
        lambda: program()(params, state, support, query),
    )


def _on_gpu(*trees: Any) -> Any:
    set_precision(PRECISION)
    return to_device(trees, "gpu")


def gpu_eager(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    """As `ours_eager`, on a GPU; a step ends when the GPU has done it."""
    gradient, update = ours_eager(w, *_on_gpu(params, support, query), order)
    return lambda: to_host(gradient()), lambda: to_host(tree.leaves(update()[0])[0])


def gpu_program(w: Workload, params: Any, support: Any, query: Any, order: int) -> tuple[Any, tuple[Any, ...]]:
    """A meta-step recorded as a CUDA graph, and its arguments; it can be repeated."""
    params, support, query = _on_gpu(params, support, query)
    gradient, optimiser = _gradient_of(w, order), optim.adam(RATE)
    state = optimiser.init(params)

    def step(carried: Any, support: Any, query: Any) -> Any:
        params, state = carried
        return optimiser.update(gradient(params, support, query), state, params), ()

    arguments = ((params, state), support, query)
    return tm.record(step, *arguments, copy=False), arguments


def gpu_graph(w: Workload, params: Any, support: Any, query: Any, order: int, count: int = 1) -> Made:
    """A call copies its arguments in, and ends when the GPU has done it."""
    made = cache(lambda: gpu_program(w, params, support, query, order))

    def step() -> Any:
        program, arguments = made()
        return program.repeat(count, *arguments)

    def gradient() -> Any:
        there = _on_gpu(params, support, query)
        return to_host(tree.leaves(tm.record(_gradient_of(w, order), *there)(*there)))

    return gradient, step


REPEATED = 20


def gpu_repeated(w: Workload, params: Any, support: Any, query: Any, order: int) -> Made:
    """As `gpu_graph`; a step is REPEATED of them, as training takes them, with nothing but launches in between."""
    return gpu_graph(w, params, support, query, order, REPEATED)
