"""What a method is: three functions of pytrees, and the settings that they read. And the problem that it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tinymaml.autodiff.tensor import Array, Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.compile.replayed import replayed
from tinymaml.settings import Settings

Batch = Mapping[str, Any]  # {"x": inputs [T, N, ...], "y": targets [T, N, ...]}
Episodes = tuple[Batch, Batch]  # (support, query)


@dataclass(frozen=True)
class Problem:
    """What a domain hands to a method: the network and its loss, the same for every task.

    Args:
        model: a pair `init(rng, dtype) -> params`, `apply(params, x) -> outputs` on the task axis, such as `nn.mlp`.
        loss: `loss(outputs, y) -> Tensor [T]`, one number a task.
        figures: `figures(outputs, y) -> {name: Tensor [T]}`, what else is to be known of a batch in training.
        answer_with: `answer_with(model, params, support, inputs) -> outputs`, those of a network for inputs by name.
        adapted: `adapted(params) -> a tree of booleans`, which parameters inner steps change; None: all of them.
        inner_scale: the inner steps descend so many times the loss.
        wider: `wider(extra) -> the network with so many more inputs`, or channels of the image; it raises ValueError
            where there is none.
        record: whether steps are recorded, and replayed from then on.
        device: where they compute.
    """

    model: Any
    loss: Callable[[Tensor, Any], Tensor]
    figures: Callable[[Tensor, Any], dict[str, Tensor]]
    answer_with: Callable[[Any, Tree, Batch, Tree], Tree]
    adapted: Callable[[Tree], Tree] | None = None
    inner_scale: float = 1.0
    wider: Callable[[int], Any] | None = None
    record: bool = True
    device: str = "cpu"
    _steps: dict[str, Callable[..., Any]] = field(default_factory=dict, repr=False, compare=False)

    def objective(self, params: Tree, batch: Batch) -> Tensor:
        """The loss of each task on a batch, [T]."""
        return self.loss(self.model.apply(params, batch["x"]), batch["y"])

    def answer(self, params: Tree, support: Batch, inputs: Tree) -> Tree:
        """The outputs for inputs by name, {name: x [T, Q, ...]}."""
        return self.answer_with(self.model, params, support, inputs)

    def replayed(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        """A function of pytrees of arrays, recorded when it is first called with arrays of some shapes.

        Args:
            name: tells the steps of one problem apart: under a name it is the first that was given which is replayed.
                All that may differ from call to call must be an argument.
        """
        if name not in self._steps:
            self._steps[name] = replayed(step, self.record, self.device)
        return self._steps[name]


@dataclass(frozen=True)
class Method(Settings):
    """Base of all methods: a frozen dataclass of settings with three pure functions on pytrees.

    A state is a dict of pytrees of arrays, with "params" in it: those that were best in validation are kept.
    """

    # Which of a domain's streams it learns from: "episodes", "examples", or "labelled" images of all training classes.
    STREAM: ClassVar[str] = "episodes"
    INFORMED: ClassVar[bool] = False  # whether its inputs are to tell the task
    RECORDED: ClassVar[bool] = True  # whether its update is recorded whole; else it records parts of it itself
    VALIDATED: ClassVar[bool] = True  # whether training is to be followed on validation tasks
    ITERATES: ClassVar[bool] = True  # whether figures are wanted after every inner step; else there is one

    @property
    def name(self) -> str:
        """As folders, tables and the command line call it."""
        return type(self).__name__.lower()

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """The state that training starts from."""
        raise NotImplementedError(f"{type(self).__name__} has no init(problem, rng, dtype) -> state")

    def update(self, problem: Problem, state: Tree, batch: Any) -> tuple[Tree, dict[str, Any]]:
        """(the state after a meta-iteration on a meta-batch, {"loss": ...}, with other figures perhaps).

        It is recorded: see `tinymaml.record`. A batch is (support, query) of the stream "episodes", each {"x": [T, N,
        ...], "y": [T, N, ...]}, and one such batch of the streams "examples" and "labelled", of T = 1 there.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update(problem, state, batch) -> (state, figures)")

    def predict(self, problem: Problem, state: Tree, support: Batch, inputs: Tree, steps: Sequence[int]) -> Tree:
        """Predictions for query inputs by name, {name: x [T, Q, ...]}: {name: [len(steps), T, Q, ...]}.

        They are those after each of the numbers of inner steps in `steps`, which rise; the same ones for each, if the
        method takes none. NaN where a task's parameters have ceased to be finite.
        """
        raise NotImplementedError(f"{type(self).__name__} has no predict(problem, state, support, inputs, steps)")

    def check(self, problem: Problem) -> None:
        """Raises ValueError, which says why, where the method does not go together with the problem."""

    def in_training(self) -> Mapping[str, Any]:
        """Settings of the domain and of the loop in place of the given ones while it is trained, by name: so its
        episodes there may have another shape than those that it is tested on. None, if not given."""
        return {}

    def candidates(self) -> Mapping[str, Method]:
        """The methods among which an evaluation chooses the one that is best on validation tasks, by name; none: this
        one."""
        return {}

    @property
    def step_size(self) -> Any:
        """Of the inner steps, for the protocol of an evaluation: a number, "learned", or "none"."""
        return "none"


def repeated(predictions: Array, steps: Sequence[int]) -> Array:
    """[len(steps), ...]: the same after any number of steps."""
    return np.broadcast_to(predictions, (len(steps), *predictions.shape))
