"""Training on a GPU: many iterations at a time, of which the host sees the beginning and the end.

An iteration is one call of a recorded program, which also draws its meta-batch and writes its figures into a table on
the GPU, a row for each iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinymaml.autodiff.dispatch import kernel
from tinymaml.autodiff.tensor import Tensor, as_tensor, constant
from tinymaml.autodiff.tree import Tree
from tinymaml.compile.program import record
from tinymaml.device import to_device, to_host
from tinymaml.meta.maml import NonFiniteError
from tinymaml.train.trainer import Figures

_write_figures, _share_of_correct = kernel("training", "write_figures"), kernel("training", "share_of_correct")

Update = Callable[[Tree, Any], tuple[Tree, dict[str, Any]]]


class DeviceStep:
    """A step of up to `longest` iterations on the GPU, a pure function of the state, which comes from the host and goes
    back.

    Args:
        draw: draw(place, *data) -> (a batch, the next place), see `tinymaml.train.sampling`.
        update: update(state, batch) -> (state, figures), each an array of `dtype` of which the mean counts. None may
            cease to be finite.
        longest: iterations at most in a step.
        data: arrays that tasks are drawn from; they are moved to the GPU once.
    """

    def __init__(
        self, draw: Callable[..., tuple[Any, Tensor]], update: Update, longest: int, dtype: str, data: Tree = ()
    ) -> None:
        self._draw, self._update = draw, update
        self._longest, self._dtype, self._data = longest, dtype, to_device(data, "gpu")
        self._names: list[str] = ["loss"]  # of the figures, known when a step was recorded
        self._program: Any = None

    def __call__(self, state: Tree, stream: Tree, count: int) -> tuple[Tree, Tree, list[Figures]]:
        """(the state, the place in the stream, the figures of each iteration) after so many."""
        arguments = self._arguments(state, stream)
        if self._program is None:
            try:
                self._program = record(self._iterate, *arguments)
            except _OtherFigures:
                arguments = self._arguments(state, stream)
                self._program = record(self._iterate, *arguments)
        after = to_host(self._program.repeat(count, *arguments)[0])
        table = after["figures"][:count]
        if not np.isfinite(table).all():
            raise NonFiniteError(f"the {self._names[int(np.argwhere(~np.isfinite(table))[0, 1])]} is not finite")
        figures = [dict(zip(self._names, map(float, row), strict=True)) for row in table]
        return after["state"], {**stream, "next_task": int(after["place"][1])}, figures

    def _arguments(self, state: Tree, stream: Tree) -> tuple[Tree, Tree]:
        carried = {
            "state": state,
            "place": np.array([stream["seed"], stream["next_task"]], np.uint64),
            "row": np.zeros(1, np.int64),
            "figures": np.zeros((self._longest, len(self._names)), self._dtype),
        }
        return to_device(carried, "gpu"), self._data

    def _iterate(self, carried: Tree, data: Tree) -> tuple[Tree, Tree]:
        batch, place = self._draw(carried["place"], *data)
        state, figures = self._update(carried["state"], batch)
        if list(figures) != self._names:
            self._names = list(figures)
            raise _OtherFigures
        table, row = carried["figures"], carried["row"]
        specs = [(x.shape, x.dtype) for x in (table, row)]
        arrays = [as_tensor(x).data for x in (table, row, *figures.values())]
        table, row = map(constant, _write_figures(specs, arrays, {}))
        return {"state": state, "place": place, "row": row, "figures": table}, ()


class _OtherFigures(Exception):
    """The table was made for other figures than an update gives."""


def share_of_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of each task's examples whose largest logit is their label's, [T]; see `training.share_of_correct`."""
    labels = as_tensor(labels)
    (share,) = _share_of_correct([(logits.shape[:1], logits.dtype)], [logits.data, labels.data], {})
    return constant(share)
