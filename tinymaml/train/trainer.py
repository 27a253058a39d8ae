"""What the training loop drives: a method on a domain, from its first state to its entry in the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from tinymaml.autodiff.tree import Tree
from tinymaml.train.training import Loop

Figures = dict[str, float]


class Trained(NamedTuple):
    """What the latest checkpoint of a run holds."""

    settings: dict[str, Any]
    state: Tree
    iterations: int
    seconds: float
    best: dict[str, Any] | None  # iteration, validation error and params; None if there was no validation


class Trainer(Protocol):
    """A method on a domain, with settings of training.

    A state is a pytree that holds all that a step depends on: parameters, the optimiser's state, the place in the
    stream of tasks. Functions of states are pure, so that a resumed run gives the same bits as one that never stopped.
    """

    @property
    def experiment(self) -> str:
        """What is trained, by name: a run's folder is for one experiment."""

    @property
    def name(self) -> str:
        """The method's."""

    @property
    def training(self) -> Loop:
        """The loop's settings."""

    @property
    def images(self) -> int:
        """Images in a meta-iteration; 0 where the data are no images."""

    @property
    def model(self) -> Any:
        """The network, or the policy."""

    def settings(self) -> dict[str, Any]:
        """All settings, for JSON."""

    def free(self) -> frozenset[str]:
        """The settings that may differ between a checkpoint and the run that goes on from it."""

    def ready(self) -> None:
        """Raises what can be said before training begins: data that are not there, say."""

    def start(self) -> Tree:
        """The state that training starts from."""

    def step(self, state: Tree, count: int = 1) -> tuple[Tree, list[Figures]]:
        """The state after so many iterations, and of each {"loss": ...}, with other figures perhaps.

        Raises NonFiniteError: one of them is not finite.
        """

    def validate(self, state: Tree) -> Figures | None:
        """{"validation": the error on held-out tasks}, with other figures perhaps; None: there is no validation."""

    def evaluate(self, trained: Trained, progress: bool = True) -> Mapping[str, Any]:
        """The entry of results.json. `progress` says whether it is shown on standard error."""
