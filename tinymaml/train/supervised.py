"""Training and evaluating any method on any domain of tasks with support and query sets."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.tensor import Array, Tensor, known
from tinymaml.autodiff.tree import Tree
from tinymaml.compile.program import record
from tinymaml.meta.maml import NonFiniteError
from tinymaml.methods import Method, Problem
from tinymaml.train import checkpoint, results
from tinymaml.train.device_loop import DeviceStep
from tinymaml.train.domain import Domain, Test
from tinymaml.train.progress import Progress
from tinymaml.train.provenance import provenance
from tinymaml.train.trainer import Figures, Trained
from tinymaml.train.training import Training

_TASKS = 25_000  # drawn at once at most, unless one meta-batch has more

STREAM = "stream"  # the part of a state that is the place in the stream of tasks; the rest is the method's


class SupervisedTrainer:
    """A method on a domain; see `tinymaml.train.trainer.Trainer`.

    A method may learn from other shapes than it is evaluated in: then `source`, `drawn` and `trained` are the domain,
    the loop's settings and the problem of its training, which else are `domain`, `training` and `problem`.

    Args:
        domain: what to learn on; for a method whose inputs are to tell the task, it is asked for its informed one.
        experiment: what is trained, by name; the domain's name, if not given.
        name: the method's, if not its own.

    Raises:
        ValueError: the method and the domain do not go together, or the settings do not; the message says why.
    """

    def __init__(
        self, domain: Domain, method: Method, training: Training, experiment: str | None = None, name: str | None = None
    ) -> None:
        self.method, self.training = method, training
        self.experiment, self.name = experiment or domain.name, name or method.name
        if method.STREAM not in domain.STREAMS:
            offered = " and ".join(domain.STREAMS)
            raise ValueError(f"{self.name} learns from a stream of {method.STREAM}, {domain.name} has one of {offered}")
        domain.check(training)
        self._uninformed = domain  # of whose settings the run is
        self.domain = domain.informed() if method.INFORMED else domain
        self.problem = _problem(self.domain, training)
        self.source, self.drawn, self.trained = self.domain, training, self.problem
        if settings := dict(method.in_training()):
            of_loop = {name: settings.pop(name) for name in training.names() & settings.keys()}
            self.drawn = dataclasses.replace(training, **of_loop)
            self.source = self.domain.in_training(method.STREAM, **settings)
            self.trained = _problem(self.source, self.drawn)
        method.check(self.problem)
        self.images, self._data = self.source.images(self.drawn), self.domain.identity()
        self._step: Any = None

    @property
    def model(self) -> Any:
        """The network."""
        return self.problem.model

    def settings(self) -> dict[str, Any]:
        """All settings, for JSON."""
        return {**self.training.as_dict(), **self._uninformed.as_dict(), **self.method.as_dict()}

    def free(self) -> frozenset[str]:
        """The settings that may differ between a checkpoint and the run that goes on from it."""
        return self.training.names("free") | self._uninformed.names("free") | self.method.names("free")

    def ready(self) -> None:
        """Raises what can be said before training begins: there are no data, or they do not suffice for the tasks."""
        dtype = np.dtype(self.training.dtype)
        getattr(self.source, self.method.STREAM)(self.training.seed, "train", 0, 1, dtype)
        if self.method.VALIDATED:
            self.domain.validation_tests(self.training.eval_seed, 0, 1, dtype)
        self.domain.tests(self.training.eval_seed, "test", 0, 1, dtype)

    # Training.

    def start(self) -> Tree:
        """The method's state from the seed, and the place in the stream of tasks."""
        state = self.method.init(self.trained, np.random.default_rng(self.training.seed), np.dtype(self.training.dtype))
        _check_state(self.name, state)
        data = {} if self._data is None else {"data": self._data}
        return {**state, STREAM: {"seed": self.training.seed, "next_task": 0, **data}}

    def step(self, state: Tree, count: int = 1) -> tuple[Tree, list[Figures]]:
        """The state after so many meta-iterations, and the figures of each."""
        if state[STREAM].get("data") != self._data:
            raise ValueError(
                f"the data of {self.experiment} have changed since this run began: take another --out, or the old data"
            )
        if self._step is None:
            self._step = self._on_gpu() if self.training.device == "gpu" else _HostStep(self)
        learned = {name: part for name, part in state.items() if name != STREAM}
        learned, stream, figures = self._step(learned, state[STREAM], count)
        return {**learned, STREAM: stream}, figures

    def update(self, state: Tree, batch: Any) -> tuple[Tree, dict[str, Any]]:
        """The method's state after a meta-batch, and figures."""
        updated = self.method.update(self.trained, state, batch)
        if not isinstance(updated, tuple) or len(updated) != 2 or not isinstance(updated[1], Mapping):
            raise ValueError(f'{self.name}: update must return (state, {{"loss": ...}}), got {type(updated).__name__}')
        after, figures = tree.map(lambda x: known(x) if isinstance(x, Tensor) else x, updated)
        tree.leaves_like(tree.flatten(state)[1], after, f"{self.name}: the state that update returns")
        if "loss" not in figures:
            raise ValueError(f'{self.name}: update must return figures with a "loss", got {sorted(figures)}')
        return after, figures

    def _on_gpu(self) -> DeviceStep:
        training = self.drawn
        draw, data = self.source.device_stream(self.method.STREAM, training)
        return DeviceStep(draw, self.update, training.longest_step, training.dtype, data)

    # Validation and evaluation.

    def validate(self, state: Tree) -> Figures | None:
        """The error on validation tasks, for methods that are followed by it."""
        if not self.method.VALIDATED:
            return None
        steps = self.domain.validation_steps(self.training) if self.method.ITERATES else [0]
        scores = self._scores(state, self._validation_batches(), [self.method], steps)
        return self.domain.validation({condition: scored.scores for condition, scored in scores.items()})

    def evaluate(self, trained: Trained, progress: bool = True) -> dict[str, Any]:
        """The entry of results.json: scores on fresh test tasks after every inner step, of the last parameters and of
        those that were best in validation."""
        domain, training, best = self.domain, self.training, trained.best
        one_task = domain.tests(training.eval_seed, "test", 0, 1, np.dtype(training.dtype))
        conditions = [list(test.inputs) for test in one_task]
        searched = [self._search(trained.state, index) for index in range(len(conditions))]
        methods = [_best(search, domain.BETTER, self.method) for search in searched]
        steps = range(training.eval_steps + 1) if self.method.ITERATES else [0]

        again = best is not None and best["iteration"] != trained.iterations  # else the best parameters are the last
        shown = Progress(f"{self.name}, test", training.eval_tasks * (1 + again), unit="task") if progress else None
        done = _Counter(shown)
        last = self._scores(trained.state, self._batches("test"), methods, steps, done)
        parameters = {"last": results.measured(trained.iterations, _figures(last))}
        if best is not None:
            state = {**trained.state, "params": best["params"]}
            scored = self._scores(state, self._batches("test"), methods, steps, done) if again else last
            parameters["best in validation"] = results.measured(best["iteration"], _figures(scored))
        if shown:
            shown.close()

        of_condition = {c: method for method, names in zip(methods, conditions, strict=True) for c in names}
        sizes = {condition: method.step_size for condition, method in of_condition.items()}
        return results.entry(
            domain=self._uninformed.name,
            metric=domain.METRIC,
            unit=domain.UNIT,
            better=domain.BETTER,
            protocol={
                "split": "test",
                "seed": training.eval_seed,
                "first_task": 0,
                "tasks": training.eval_tasks,
                "alpha": next(iter(sizes.values())) if len({str(a) for a in sizes.values()}) == 1 else sizes,
                **({} if self._data is None else {"data": self._data}),
                **domain.protocol(training),
                "interval": "mean ± 1.96 sigma / sqrt(tasks)",
            },
            provenance=provenance(self.settings(), trained),
            parameters=parameters,
            step_size_search={
                condition: {alpha: score for alpha, (_, score) in search.items()}
                for search, names in zip(searched, conditions, strict=True)
                for condition in names[:1]
                if search
            },
            details=domain.details(
                lambda condition, support, inputs, steps: of_condition[condition].predict(
                    self.problem, trained.state, support, inputs, steps
                ),
                training,
            ),
        )

    def _batches(self, split: str) -> Iterator[tuple[list[Test], int]]:
        """(tests, their number of tasks), drawn as they are asked for, `eval_batch` tasks at a time."""
        training = self.training
        count = training.eval_tasks if split == "test" else training.validation_tasks
        for first, tasks in _parts(count, training.eval_batch):
            yield self.domain.tests(training.eval_seed, split, first, tasks, np.dtype(training.dtype)), tasks

    def _validation_batches(self) -> Iterator[tuple[list[Test], int]]:
        """As `_batches`, of the tests that follow training."""
        training = self.training
        for first, tasks in _parts(training.validation_tasks, training.eval_batch):
            yield self.domain.validation_tests(training.eval_seed, first, tasks, np.dtype(training.dtype)), tasks

    def _search(self, state: Tree, index: int) -> dict[str, tuple[Method, float | None]]:
        """The method's candidates with their mean scores after all inner steps on validation tasks, for a test; None
        where that is not finite."""
        candidates = self.method.candidates()
        if not candidates:
            return {}
        steps, searched = [self.training.eval_steps], {}
        for name, candidate in candidates.items():
            batches = (([tests[index]], tasks) for tests, tasks in self._batches("validation"))
            (scored, *_) = self._scores(state, batches, [candidate], steps).values()
            mean = float(scored.scores[-1].mean(dtype=np.float64))
            searched[name] = (candidate, mean if math.isfinite(mean) else None)
        return searched

    def _scores(
        self,
        state: Tree,
        batches: Iterable[tuple[list[Test], int]],
        methods: list[Method],
        steps: Sequence[int],
        done: Any = lambda tasks: None,
    ) -> dict[str, Scored]:
        """Scores [steps, tasks] by condition, of a method for each test, or one for all of them."""
        batches_of: dict[str, list[Scored]] = {}
        for tests, tasks in batches:
            for test, method in zip(
                tests, methods if len(methods) == len(tests) else methods * len(tests), strict=True
            ):
                for condition, scored in self._scores_of(state, test, method, steps).items():
                    batches_of.setdefault(condition, []).append(scored)
            done(tasks)
        return {
            condition: Scored(*(np.concatenate(parts, -1) for parts in zip(*scored, strict=True)))
            for condition, scored in batches_of.items()
        }

    def _scores_of(self, state: Tree, test: Test, method: Method, steps: Sequence[int]) -> dict[str, Scored]:
        """Scores by condition; a task with predictions that are not finite is as bad as can be from there on."""
        fit = self.domain.CHECKS_FIT
        inputs = {**test.inputs, _SUPPORT: test.support["x"]} if fit else test.inputs
        predicted = method.predict(self.problem, state, test.support, inputs, steps)
        _check_predictions(self.name, predicted, inputs, len(steps))
        worst = np.inf if self.domain.BETTER == "lower" else -np.inf

        def scores(predictions: Tree, targets: Any) -> Array:
            of_steps = []
            for k in range(len(steps)):
                with np.errstate(over="ignore", invalid="ignore"):
                    scored = np.asarray(self.domain.score(tree.map(lambda x, k=k: x[k], predictions), targets))
                of_steps.append(np.where(np.isnan(scored), worst, scored))
            return np.array(of_steps)

        if fit:
            fits = scores(predicted[_SUPPORT], test.support["y"])
            diverged = ~(fits[-1] <= fits[0]) if self.domain.BETTER == "lower" else ~(fits[-1] >= fits[0])
        else:
            finite = [np.isfinite(x[-1]).reshape(x.shape[1], -1).all(1) for x in tree.leaves(predicted)]
            diverged = ~np.logical_and.reduce(finite)
        return {
            condition: Scored(scores(predicted[condition], test.targets[condition]), diverged)
            for condition in test.inputs
        }


def _check_state(name: str, state: Tree) -> None:
    """Raises ValueError for a method's first state that training cannot go on from, or that no checkpoint holds."""
    if not isinstance(state, dict) or "params" not in state or STREAM in state:
        got = f"one of {', '.join(map(repr, state))}" if isinstance(state, dict) else type(state).__name__
        raise ValueError(f'{name}: init must return a dict with "params" and without "{STREAM}", got {got}')
    for i, leaf in enumerate(tree.leaves(state)):
        if not isinstance(leaf, np.ndarray) or leaf.dtype.kind not in checkpoint.KINDS:
            place = tree.place("state", state, i)
            raise ValueError(f"{name}: a state is of arrays of numbers alone, and {place} is {leaf!r}")
    checkpoint.check(state)


def _check_predictions(name: str, predicted: Any, inputs: Mapping[str, Any], steps: int) -> None:
    """Raises ValueError for what a method's `predict` may not return."""
    if not isinstance(predicted, Mapping) or set(predicted) != set(inputs):
        got = ", ".join(map(repr, predicted)) if isinstance(predicted, Mapping) else type(predicted).__name__
        names = ", ".join(map(repr, inputs))
        raise ValueError(f"{name}: predict must return a dict with the names of its inputs, {names}, got {got}")
    for key, of_name in predicted.items():
        expected = (steps, len(tree.leaves(inputs[key])[0]))
        for leaf in tree.leaves(of_name):
            if tuple(leaf.shape[:2]) != expected:
                raise ValueError(
                    f"{name}: predict must return predictions [steps, tasks, ...], for {key!r} {list(expected)} and "
                    f"more, got the shape {list(leaf.shape)}"
                )


_SUPPORT = "the support set itself"  # the name of its inputs, which no condition has


class Scored(NamedTuple):
    """Scores of tasks."""

    scores: Array  # [steps, tasks]
    diverged: Array  # booleans [tasks]


def _parts(count: int, size: int) -> Iterator[tuple[int, int]]:
    """(first, how many) of so many at a time."""
    for first in range(0, count, size):
        yield first, min(size, count - first)


def _problem(domain: Domain, training: Training) -> Problem:
    """What methods know of a domain."""
    model = domain.model()
    if not callable(getattr(model, "init", None)) or not callable(getattr(model, "apply", None)):
        raise ValueError(
            f"{type(domain).__name__}.model must return a network with init(rng, dtype) and apply(params, x), "
            f"such as nn.mlp([1, 40, 40, 1]), got a {type(model).__name__}"
        )
    return Problem(
        model,
        domain.loss,
        domain.figures,
        domain.answer,
        domain.adapted,
        domain.inner_scale,
        domain.wider_model,
        training.record,
        training.device,
    )


def _figures(scored: Mapping[str, Scored]) -> dict[str, Any]:
    return {condition: results.figures(one.scores, one.diverged) for condition, one in scored.items()}


def _best(searched: Mapping[str, tuple[Method, float | None]], better: str, method: Method) -> Method:
    """The candidate with the best score, the first of them if all diverged; the method itself, if there are none."""
    sign = 1 if better == "lower" else -1
    ordered = [(math.inf if score is None else sign * score, i) for i, (_, score) in enumerate(searched.values())]
    return list(searched.values())[min(ordered)[1]][0] if ordered else method


class _Counter:
    """Tells progress how many tasks were evaluated, and for how long."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress, self.tasks, self.began = progress, 0, time.perf_counter()

    def __call__(self, tasks: int) -> None:
        self.tasks += tasks
        if self.progress:
            self.progress.update(self.tasks, time.perf_counter() - self.began)


class _HostStep:
    """Meta-iterations whose meta-batches are drawn on the CPU, one at a time."""

    def __init__(self, trainer: SupervisedTrainer) -> None:
        self.trainer = trainer
        self._program: Any = None if trainer.training.record and trainer.method.RECORDED else trainer.update
        size = trainer.drawn.meta_batch
        self._count = max(1, min(trainer.source.BLOCK, _TASKS // size)) * size
        self._drawn: tuple[int, int] | None = None  # (seed, first task) of the meta-batches that were drawn last,
        self._block: Tree = None  # and they

    def __call__(self, state: Tree, stream: Tree, count: int) -> tuple[Tree, Tree, list[Figures]]:
        """(the state, the place in the stream, the figures of each iteration) after so many."""
        of_each = []
        for _ in range(count):
            batch = self._batch(stream["seed"], stream["next_task"])
            if self._program is None:
                self._program = record(self.trainer.update, state, batch)
            state, figures = self._program(state, batch)
            of_each.append(_finite(figures))
            stream = {**stream, "next_task": stream["next_task"] + self.trainer.drawn.meta_batch}
        return state, stream, of_each

    def _batch(self, seed: int, task: int) -> Tree:
        """A meta-batch of the stream, out of the block that was drawn last."""
        trainer, size = self.trainer, self.trainer.drawn.meta_batch
        if self._drawn is None or self._drawn[0] != seed or not 0 <= task - self._drawn[1] < self._count:
            draw = getattr(trainer.source, trainer.method.STREAM)
            self._drawn = seed, task
            self._block = draw(seed, "train", task, self._count, np.dtype(trainer.training.dtype))
        first = task - self._drawn[1]
        here = slice(first, first + size)
        return tree.map(lambda x: x[here], self._block)


def _finite(figures: Mapping[str, Any]) -> Figures:
    """The means of figures over the tasks. Raises NonFiniteError: one is not finite."""
    means = {}
    for name, value in figures.items():
        means[name] = mean = float(np.mean(value, dtype=np.float64) if np.ndim(value) else value)
        if not math.isfinite(mean):
            raise NonFiniteError(f"the {name} is not finite")
    return means
