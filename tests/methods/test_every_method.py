"""What every method must hold on every domain that offers it: a new one is tested here once it is in METHODS."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")

from tests.cases.experiment_cases import SMALL, TINY, write_small
from tests.train.test_resume import assert_same_bits
from tinymaml import record, tree
from tinymaml.experiments.few_shot.domain import INDUCTIVE, TRANSDUCTIVE, FewShotImages
from tinymaml.experiments.registry import EXPERIMENTS, GENERAL
from tinymaml.experiments.sinusoid.domain import Sinusoids
from tinymaml.methods import Method
from tinymaml.train import loop, metrics
from tinymaml.train.experiment import Experiment
from tinymaml.train.supervised import STREAM, SupervisedTrainer

METHODS = {"sinusoid": dict(Sinusoids.METHODS), "images": dict(FewShotImages.METHODS)}
SETTINGS: dict[str, dict[str, Any]] = {
    "sinusoid": {**TINY, "steps": 2, "eval_shots": (3,), "eval_query": 5},
    "images": {**SMALL, "test_steps": 1, "layers": 3, "steps": 2},
}

# What does not hold for a method, by what it is.
UNTRAINED = {"random"}  # learns nothing
ORDERED: set[str] = set()  # the order of the support set matters to it

# Settings that a method needs to overfit a sinusoid within a few iterations.
TO_OVERFIT: dict[str, dict[str, Any]] = {
    "reptile": {"meta_step": 1.0, "steps": 5},
    "imaml": {"steps": 16, "proximity": 10.0},
    "multi-task": {"steps": 500},
    "multi-task-l2": {"steps": 500},
    "multi-task-l2-to-mean": {"steps": 500},
}

# One of each kind; the others are as they are in most that is tested here, and are left to `make test-all`.
OF_EACH_KIND = {
    "sinusoid": ("maml", "pretrained", "oracle", "context-vector", "reptile", "multi-task"),
    "images": ("maml", "cavia", "prototypical", "fine-tune"),
}
PAIRS = [
    pytest.param(
        domain, method, id=f"{method}-{domain}", marks=[] if method in OF_EACH_KIND[domain] else [pytest.mark.slow]
    )
    for domain, methods in METHODS.items()
    for method in methods
]
every = pytest.mark.parametrize(("domain", "method"), PAIRS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("data"))


def tiny_experiment(domain: str, folder: Path, **changes: Any) -> Experiment:
    """Small settings for a domain, with all methods that it offers."""
    experiment = EXPERIMENTS["sinusoid"] if domain == "sinusoid" else GENERAL["images"]
    data = {} if domain == "sinusoid" else {"data": str(folder)}
    offered = dataclasses.replace(experiment, methods=METHODS[domain])
    return offered.replaced(**{**SETTINGS[domain], **data, **changes})


def trainer_of(domain: str, method: str, folder: Path, **changes: Any) -> SupervisedTrainer:
    trainer = tiny_experiment(domain, folder, **changes).trainer(method)
    assert isinstance(trainer, SupervisedTrainer)
    return trainer


def after(trainer: SupervisedTrainer, iterations: int) -> Any:
    """The state after so many, and the figures of each."""
    state, figures = trainer.start(), []
    for _ in range(iterations):
        state, of_each = trainer.step(state)
        figures += of_each
    return state, figures


def method_of(trainer: SupervisedTrainer) -> Method:
    """The trainer's method, or the first of its candidates."""
    return next(iter(trainer.method.candidates().values()), trainer.method)


def predicted(trainer: SupervisedTrainer, state: Any, support: Any, inputs: Any, steps: Sequence[int]) -> Any:
    learned = {name: part for name, part in state.items() if name != STREAM}
    return method_of(trainer).predict(trainer.problem, learned, support, inputs, steps)


def assert_close(one: Any, other: Any, rtol: float = 1e-9) -> None:
    """To rounding: of the size of the largest number."""
    for a, b in zip(tree.leaves(one), tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(np.abs(a).max()))


@every
def test_a_recorded_step_is_the_eager_one_to_the_bit(domain: str, method: str, folder: Path) -> None:
    recorded, eager = (after(trainer_of(domain, method, folder, record=record), 4) for record in (True, False))
    assert_same_bits(recorded[0], eager[0])
    assert recorded[1] == eager[1]


@every
def test_recorded_predictions_are_the_eager_ones_to_the_bit(domain: str, method: str, folder: Path) -> None:
    results = []
    for record_ in (True, False):
        trainer = trainer_of(domain, method, folder, record=record_)
        ((test, *_), _), *_ = trainer._batches("test")
        state = after(trainer, 2)[0]
        results.append(predicted(trainer, state, test.support, test.inputs, [0, 1, 3]))
    assert_same_bits(*results)


@every
def test_resuming_gives_the_same_bits(domain: str, method: str, folder: Path, tmp_path: Path) -> None:
    often = {"iterations": 9, "log_every": 2, "validate_every": 3, "checkpoint_every": 4}

    def run(name: str, **changes: Any) -> Any:
        return loop.train(tmp_path / name, trainer_of(domain, method, folder, **{**often, **changes}))

    whole = run("whole")
    run("parts", iterations=5)
    assert_same_bits(run("parts"), whole)
    ends = [loop.latest(tmp_path / name) for name in ("parts", "whole")]
    assert_same_bits(ends[0].best, ends[1].best)
    assert (ends[0].best is not None) == METHODS[domain][method].VALIDATED
    lines = [metrics.read(tmp_path / name / "metrics.jsonl") for name in ("parts", "whole")]
    validations = [[line for line in own if "validation" in line] for own in lines]
    assert validations[0] == validations[1]


@every
def test_an_update_changes_nothing_that_it_is_given(domain: str, method: str, folder: Path) -> None:
    trainer = trainer_of(domain, method, folder)
    state = after(trainer, 1)[0]
    before = tree.map(lambda x: np.array(x, copy=True), state)
    trainer.step(state)
    assert_same_bits(tree.map(np.asarray, state), before)


@functools.cache
def trained(domain: str, method: str, folder: Path) -> Any:
    """(trainer, state, the first test, predictions after some steps) of a method after some iterations."""
    trainer = trainer_of(domain, method, folder, dtype="float64")
    ((test, *_), _), *_ = trainer._batches("test")
    state = after(trainer, 3)[0]
    return trainer, state, test, predicted(trainer, state, test.support, test.inputs, STEPS)


STEPS = [0, 1, 3]


@every
def test_predictions_are_by_step_task_and_query(domain: str, method: str, folder: Path) -> None:
    _, _, test, outputs = trained(domain, method, folder)
    assert set(outputs) == set(test.inputs)
    for name, inputs in test.inputs.items():
        assert outputs[name].shape[:3] == (3, *inputs.shape[:2])
        assert outputs[name].dtype == np.float64
        assert np.isfinite(outputs[name]).all()


@every
def test_the_order_of_the_support_set_does_not_matter(domain: str, method: str, folder: Path) -> None:
    if method in ORDERED:
        pytest.skip("the support set is a sequence to this method")
    trainer, state, test, one = trained(domain, method, folder)
    order = np.random.default_rng(0).permutation(test.support["x"].shape[1])
    shuffled = {name: np.ascontiguousarray(x[:, order]) for name, x in test.support.items()}
    assert_close(predicted(trainer, state, shuffled, test.inputs, STEPS), one)


@every
def test_a_task_is_told_nothing_by_the_other_tasks(domain: str, method: str, folder: Path) -> None:
    trainer, state, test, one = trained(domain, method, folder)
    turned, inputs = (tree.map(lambda x: np.roll(x, 1, 0), batch) for batch in (dict(test.support), test.inputs))
    assert_close(predicted(trainer, state, turned, inputs, STEPS), tree.map(lambda x: np.roll(x, 1, 1), one))


@every
def test_the_order_of_the_queries_moves_their_predictions_alone(domain: str, method: str, folder: Path) -> None:
    trainer, state, test, one = trained(domain, method, folder)
    reversed_ = {name: np.ascontiguousarray(x[:, ::-1]) for name, x in test.inputs.items()}
    other = predicted(trainer, state, test.support, reversed_, STEPS)
    assert_close({name: x[:, :, ::-1] for name, x in other.items()}, one)


@every
def test_it_overfits_one_task(domain: str, method: str, folder: Path) -> None:
    if method in UNTRAINED:
        pytest.skip("this method is not trained")
    network: dict[str, Any] = {"hidden": (20, 20), "activation": "tanh"} if domain == "sinusoid" else {"filters": 8}
    needed = TO_OVERFIT.get(method, {}) if domain == "sinusoid" else {}
    changes = {"learning_rate": 0.01, "dtype": "float64", **network, **needed}
    trainer = trainer_of(domain, method, folder, **changes)
    if trainer.method.STREAM == "labelled":
        pytest.skip("this method learns from single images, not from tasks")
    dtype = np.dtype(np.float64)
    support, query = trainer.domain.episodes(0, "train", 0, 1, dtype)
    batch = getattr(trainer.domain, trainer.method.STREAM)(0, "train", 0, 1, dtype)
    state = {name: part for name, part in trainer.start().items() if name != STREAM}
    program = record(trainer.update, state, batch) if trainer.method.RECORDED else trainer.update
    for _ in range(300 if trainer.method.RECORDED else 1):
        state, _ = program(state, batch)
    name = "query" if domain == "sinusoid" else f"{TRANSDUCTIVE}, 2 query"
    outputs = predicted(trainer, state, support, {name: query["x"]}, [1, 2, 5])[name]
    scores = [float(trainer.domain.score(output, query["y"]).item()) for output in outputs]
    if domain == "sinusoid":
        assert min(scores) < 0.1 * np.var(query["y"])
    else:
        assert max(scores) == 1


@pytest.mark.parametrize("method", OF_EACH_KIND["images"])
def test_support_labels_at_random_give_accuracies_of_chance(method: str, folder: Path) -> None:
    """Query images are class by class, and the labels of the support images tell nothing of them: what is better than
    chance has seen more than it may."""
    trainer = trainer_of("images", method, folder)
    state = after(trainer, 12)[0]
    ways, tasks, rng = 3, 300, np.random.default_rng(0)
    (test,) = trainer.domain.tests(0, "test", 0, tasks, np.dtype(np.float32))
    labels = rng.permuted(test.support["y"], axis=1)
    support = {"x": test.support["x"], "y": labels}
    inputs = {name: x for name, x in test.inputs.items() if name.startswith((TRANSDUCTIVE, INDUCTIVE))}
    for name, outputs in predicted(trainer, state, support, inputs, [0, 3]).items():
        for of_step in outputs:
            scores = trainer.domain.score(of_step, test.targets[name])
            assert abs(scores.mean() - 1 / ways) < 4 * scores.std() / np.sqrt(tasks) + 1e-6
