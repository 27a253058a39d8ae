"""Training on a GPU: many iterations at a time, of which the host sees the beginning and the end.

An iteration is one call of a recorded program that also draws its meta-batch and writes its figures into a table on
the GPU. What differs between iterations comes in as a table too, with a row for each: the optimiser's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinymaml import record
from tinymaml.autodiff.dispatch import kernel
from tinymaml.autodiff.tensor import Tensor, constant
from tinymaml.autodiff.tree import Tree
from tinymaml.device import to_device, to_host
from tinymaml.meta.maml import NonFiniteError
from tinymaml.optim import Optimiser
from tinymaml.train.loop import Figures, Step

_row, _note, _right = kernel("training.row"), kernel("training.note"), kernel("training.right")


def stretches(
    draw: Callable[..., tuple[Sequence[Tree], Tensor]],
    gradient: Callable[..., tuple[dict[str, Tensor], Tree]],
    optimiser: Optimiser,
    figures: Sequence[str],
    longest: int,
    dtype: str,
    data: Tree = (),
) -> Step:
    """A step of up to `longest` iterations on the GPU, a pure function of the state, which comes from the host and goes
    back.

    Args:
        draw: draw(place, *data) -> (batches, the next place), see `tinymaml.train.sampling`.
        gradient: gradient(params, *batches) -> (figures, gradient).
        figures: their names; each is an array of `dtype`, of which the mean counts. None may cease to be finite.
        data: arrays that tasks are drawn from; they are moved to the GPU once.
    """
    data = to_device(data, "gpu")
    program: Any = None

    def iterate(carried: Tree, numbers: Tensor, data: Tree) -> tuple[Tree, Tree]:
        batches, place = draw(carried["place"], *data)
        found, grads = gradient(carried["params"], *batches)
        now = _tensors(_row([(numbers.shape[1:], numbers.dtype)], [numbers.data, carried["slot"].data], {}))[0]
        params, moments = optimiser.move(grads, carried["moments"], carried["params"], now)
        outs = [(x.shape, x.dtype) for x in (carried["figures"], carried["slot"])]
        ins = [carried["figures"].data, carried["slot"].data, *[found[name].data for name in figures]]
        table, slot = _tensors(_note(outs, ins, {}))
        return {"params": params, "moments": moments, "place": place, "slot": slot, "figures": table}, ()

    def step(state: Tree, count: int = 1) -> tuple[Tree, list[Figures]]:
        nonlocal program
        done, stream = int(state["optimiser"]["iteration"]), state["stream"]
        rows = [optimiser.numbers(done + i) for i in range(count)]
        numbers = np.zeros((longest, *rows[0].shape))
        numbers[:count] = rows
        carried = {
            "params": state["params"],
            "moments": {name: moment for name, moment in state["optimiser"].items() if name != "iteration"},
            "place": np.array([stream["seed"], stream["next_task"]], np.uint64),
            "slot": np.zeros(1, np.int64),
            "figures": np.zeros((longest, len(figures)), dtype),
        }
        arguments = (to_device(carried, "gpu"), numbers, data)
        if program is None:
            program = record(iterate, *arguments)
        after = to_host(program.repeat(count, *arguments)[0])
        found = after["figures"][:count]
        if not np.isfinite(found).all():
            raise NonFiniteError(f"the {figures[int(np.argwhere(~np.isfinite(found))[0, 1])]} is not finite")
        state = {
            "params": after["params"],
            "optimiser": {"iteration": np.asarray(done + count), **after["moments"]},
            "stream": {**stream, "next_task": int(after["place"][1])},
        }
        return state, [dict(zip(figures, map(float, row), strict=True)) for row in found]

    return step


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of each task's examples whose largest logit is their label's, [T]; see `training.right`."""
    return _tensors(_right([(logits.shape[:1], logits.dtype)], [logits.data, labels.data], {}))[0]


def _tensors(arrays: Sequence[Any]) -> list[Tensor]:
    return [constant(x) for x in arrays]
