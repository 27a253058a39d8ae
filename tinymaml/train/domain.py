"""What a domain is: something to learn on, which draws tasks, names a network and its loss, and scores predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Array, Tensor
from tinymaml.autodiff.tree import Tree
from tinymaml.methods import MAML, Method, Oracle, Pretrained, Random
from tinymaml.methods.method import Batch, Episodes
from tinymaml.ops import mse
from tinymaml.settings import Settings
from tinymaml.train.trainer import Trainer
from tinymaml.train.training import Loop, Training

SPLITS = ("train", "validation", "test")
NEW_TASKS = "new tasks"  # what figures are of, where there is nothing else to tell


class Test(NamedTuple):
    """Tasks to evaluate a method on. The names of inputs and targets are the conditions that results tell apart."""

    support: Batch
    inputs: dict[str, Array]  # {condition: x [T, Q, ...]}
    targets: dict[str, Any]  # {condition: y [T, Q, ...]}


class DeviceStream(NamedTuple):
    """Tasks drawn where the data are, as a part of a recorded step.

    draw(place, *data) -> (a batch of the stream, the next place), where a place is an array (seed, next task) of
    uint64; `data` are arrays that tasks are drawn from.
    """

    draw: Callable[..., tuple[Any, Tensor]]
    data: tuple[Any, ...] = ()


# predict(condition, support, inputs by name, steps) -> predictions by name, with the step size that is best there.
Predict = Callable[[str, Batch, Tree, Sequence[int]], Tree]


@dataclass(frozen=True)
class Domain(Settings):
    """Base of all domains: a frozen dataclass of settings. A subclass has `model` and `task`; all else has a default.

    Example:
        >>> class Lines(Domain):
        ...     def model(self):
        ...         return nn.mlp([1, 20, 1])
        ...     def task(self, rng, split):
        ...         x = rng.uniform(-1, 1, (20, 1))
        ...         y = rng.normal() * x + rng.normal()
        ...         return {"x": x[:5], "y": y[:5]}, {"x": x[5:], "y": y[5:]}
    """

    METRIC: ClassVar[str] = "mean squared error"
    UNIT: ClassVar[str] = ""
    BETTER: ClassVar[Literal["lower", "higher"]] = "lower"
    BLOCK: ClassVar[int] = 1  # meta-batches to draw at once, where drawing many costs little more than drawing one
    STREAMS: ClassVar[tuple[str, ...]] = ("episodes", "examples")
    METHODS: ClassVar[Mapping[str, Any]] = {
        "maml": MAML(),
        "fomaml": MAML(order=1),
        "pretrained": Pretrained(),
        "random": Random(),
        "oracle": Oracle(),
    }
    TRAINING: ClassVar[Loop] = Training()
    # Whether a task whose support set is fitted worse after the inner steps than before counts as diverged.
    CHECKS_FIT: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """As results and checkpoints call it."""
        return type(self).__name__.lower()

    @property
    def folder_name(self) -> str:
        """Of the folder of its runs, where no other is given."""
        return self.name

    # What a subclass has to have.

    def model(self) -> Any:
        """The network: a pair `init(rng, dtype) -> params`, `apply(params, x) -> outputs` on the task axis."""
        raise NotImplementedError(f"{type(self).__name__} has no model() -> a network, such as nn.mlp([1, 40, 40, 1])")

    def task(self, rng: np.random.Generator, split: str) -> Episodes:
        """(support, query) of one task, each {"x": [N, ...], "y": [N, ...]}; of the same shapes for all tasks.

        `rng` is the task's own: seeded by (seed, split, task), so that a task is the same however many are drawn.
        """
        raise NotImplementedError(f"{type(self).__name__} has no task(rng, split) -> (support, query)")

    # How good predictions are.

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """One number a task, [T]: the mean squared error, where a subclass says nothing else."""
        return mse(outputs, targets)

    def figures(self, outputs: Tensor, targets: Any) -> dict[str, Tensor]:
        """What else is to be known of a query set in training, [T] each."""
        return {}

    def score(self, outputs: Array, targets: Any) -> Array:
        """What results are of, one number a task, [T]: the loss, where a subclass says nothing else."""
        return self.loss(cast(Any, outputs), targets).numpy()

    # The network, as methods use it.

    def answer(self, model: Any, params: Tree, support: Batch, inputs: Tree) -> Tree:
        """Outputs for inputs by name."""
        return {name: model.apply(params, x) for name, x in inputs.items()}

    def adapted(self, params: Tree) -> Tree:
        """Which parameters inner steps change: a tree of booleans, or None for all."""
        return None

    def wider_model(self, extra: int) -> Any:
        """The network with so many more inputs, for a context among them. Raises ValueError: there is none."""
        raise ValueError(f"{self.name} has no network with more inputs: no context can be among them")

    @property
    def inner_scale(self) -> float:
        """Inner steps descend so many times the loss."""
        return 1.0

    # Streams of tasks.

    def episodes(self, seed: int, split: str, first_task: int, tasks: int, dtype: Any) -> Episodes:
        """Support and query sets [T, N, ...] of tasks first_task, first_task + 1, ... of a split's stream."""
        drawn = [self.task(task_rng(seed, split, first_task + t), split) for t in range(tasks)]
        for t, episode in enumerate(drawn):
            _check_episode(self, episode, drawn[0], first_task + t)
        return cast(Episodes, tuple(_stacked(batches, dtype) for batches in zip(*drawn, strict=True)))

    def examples(self, seed: int, split: str, first_task: int, tasks: int, dtype: Any) -> Batch:
        """The examples of tasks, support and query together, [T, N, ...]."""
        support, query = self.episodes(seed, split, first_task, tasks, dtype)
        return {name: np.concatenate([support[name], query[name]], 1) for name in support}

    def labelled(self, seed: int, split: str, first_task: int, tasks: int, dtype: Any) -> Batch:
        """Batches of single labelled examples of all classes of a split, [tasks, N, ...]: of a domain of classes alone,
        which then has "labelled" among its STREAMS."""
        raise NotImplementedError(f"{type(self).__name__} has no labelled(seed, split, first_task, tasks, dtype)")

    def in_training(self, stream: str, **settings: Any) -> Domain:
        """What is drawn from, and whose network is trained, where a method learns from a stream in other shapes than it
        is tested in: with these settings. Raises ValueError: there are no such settings."""
        for name in settings:
            if name not in self.names():
                raise ValueError(f"{self.name} has no setting {name!r}, so that it cannot be another in training")
        return dataclasses.replace(self, **settings)

    def informed(self) -> Domain:
        """The same domain with the task told by its inputs, for an oracle. Raises ValueError: there is none."""
        raise ValueError(f"{self.name} has no inputs that tell the task: there is no oracle for it")

    def device_stream(self, stream: str, training: Training) -> DeviceStream:
        """Meta-batches of a stream drawn on a GPU. Raises ValueError: this domain's are drawn by the CPU alone."""
        raise ValueError(f"{self.name} draws its tasks on the CPU: there is no --device gpu for it")

    # Validation and evaluation.

    def tests(self, seed: int, split: str, first_task: int, tasks: int, dtype: Any) -> list[Test]:
        """Tasks of a split to evaluate a method on; one test for each support set that it is to adapt to."""
        support, query = self.episodes(seed, split, first_task, tasks, dtype)
        return [Test(support, {NEW_TASKS: query["x"]}, {NEW_TASKS: query["y"]})]

    def validation_tests(self, seed: int, first_task: int, tasks: int, dtype: Any) -> list[Test]:
        """As `tests`, those that follow training: of validation tasks."""
        return self.tests(seed, "validation", first_task, tasks, dtype)

    def validation_steps(self, training: Training) -> Sequence[int]:
        """After how many inner steps validation measures."""
        return range(training.eval_steps + 1)

    def validation(self, scores: Mapping[str, Array]) -> dict[str, float]:
        """{"validation": how bad these scores [steps, tasks] are}, by which the best parameters are chosen, with other
        figures perhaps: the mean over all steps but that before adaptation."""
        (score,) = list(scores.values())[:1]
        mean = float(np.mean(score[1:] if len(score) > 1 else score, dtype=np.float64))
        return {"validation": mean if self.BETTER == "lower" else -mean}

    def protocol(self, training: Training) -> dict[str, Any]:
        """What the results say of how they were measured, beside what every domain's do."""
        return {}

    def details(self, predict: Predict, training: Training) -> dict[str, Any]:
        """What the domain's own pictures need, for JSON."""
        return {}

    # What a run is.

    def identity(self) -> str | None:
        """Tells the data apart that tasks are drawn from; a run goes on only with the same."""
        return None

    def images(self, training: Training) -> int:
        """Images in a meta-iteration; 0 where the data are no images."""
        return 0

    def least_numbers(self, training: Any) -> int:
        """How many numbers a run holds in memory at once, at the very least."""
        return 0

    def check(self, training: Any) -> None:
        """Raises ValueError for settings of training that this domain cannot have."""

    def trainer(self, method: Any, training: Any, experiment: str | None = None, name: str | None = None) -> Trainer:
        """What trains a method on this domain, and evaluates it.

        Raises:
            ValueError: the method and the domain do not go together; the message says why.
        """
        from tinymaml.train.supervised import SupervisedTrainer

        if not isinstance(method, Method):
            raise ValueError(
                f"{type(method).__name__} is no method for {self.name}, which has support and query sets: "
                f"there are {', '.join(self.METHODS)}"
            )
        return SupervisedTrainer(self, method, training, experiment, name)


def task_rng(seed: int, split: str, task: int) -> np.random.Generator:
    """The generator of a task's random numbers. Raises ValueError: an unknown split."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return np.random.default_rng([seed, SPLITS.index(split), task])


def _stacked(batches: Iterable[Batch], dtype: Any) -> Batch:
    """Batches of one task each as one of all, floating-point numbers of the dtype."""

    def stack(*arrays: Any) -> Array:
        stacked = np.stack(arrays)
        return stacked.astype(dtype, copy=False) if stacked.dtype.kind == "f" else stacked

    return cast(Batch, tree.map(stack, *[dict(batch) for batch in batches]))


def _kind(value: Any) -> str:
    """For a message."""
    if isinstance(value, tuple):
        return f"({', '.join(type(item).__name__ for item in value)})"
    return f"a {type(value).__name__}"


def _check_episode(domain: Domain, episode: Any, first: Any, task: int) -> None:
    """Raises ValueError, which says what is right, if what `task` gave is no episode, or unlike the first."""
    where = f"{type(domain).__name__}.task (task {task})"
    if not isinstance(episode, tuple) or len(episode) != 2 or not all(isinstance(b, Mapping) for b in episode):
        batch = '{"x": [N, ...], "y": [N, ...]}'
        raise ValueError(f"{where} must return (support, query), each {batch}, got {_kind(episode)}")
    for name, batch, like in zip(("support", "query"), episode, first, strict=True):
        if set(batch) != {"x", "y"}:
            raise ValueError(f'{where}: {name} must have "x" and "y", got {", ".join(map(repr, batch)) or "nothing"}')
        counts = {key: {np.shape(x)[0] for x in tree.leaves(batch[key]) if np.shape(x)} for key in ("x", "y")}
        if len(counts["x"] | counts["y"]) > 1:
            said = " and ".join(f"{key!r} {' or '.join(map(str, sorted(n)))}" for key, n in counts.items())
            raise ValueError(f"{where}: {name} must have a target for each input, its first axes are of {said}")
        for key in ("x", "y"):
            shapes = [[np.shape(x) for x in tree.leaves(one[key])] for one in (batch, like)]
            if not shapes[0] or any(not shape or 0 in shape for shape in shapes[0]):
                raise ValueError(f"{where}: {name}[{key!r}] must be an array [N, ...] of one example or more")
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"{where}: {name}[{key!r}] has shape {shapes[0][0]}, that of other tasks {shapes[1][0]}: all tasks "
                    "need the same shapes"
                )
