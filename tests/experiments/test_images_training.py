"""The image experiments: what a step does, what is evaluated, and that a stopped run goes on to the same bits."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")

import tinymaml as tm
from tests.cases.experiment_cases import small, write_small
from tests.train.test_resume import assert_same_bits
from tinymaml import nets
from tinymaml.experiments.few_shot.domain import INDUCTIVE, TRANSDUCTIVE, FewShotImages
from tinymaml.experiments.few_shot.experiments import EXPERIMENTS
from tinymaml.tasks import episodes
from tinymaml.train import loop, metrics
from tinymaml.train.experiment import Experiment

KINDS = (TRANSDUCTIVE, INDUCTIVE)
LINEAR = {
    "network": "mlp", "hidden": (6, 5), "initialiser": "truncated-normal", "head_initialiser": "truncated-normal",
}  # fmt: skip
COLOUR = {"downsample": "max-pool", "head_initialiser": "xavier-uniform", "rotations": False, "steps": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("data"))


def run(out: Path, experiment: Experiment, method: str = "maml") -> Any:
    return loop.train(out, experiment.trainer(method))


def evaluated(out: Path, experiment: Experiment) -> Any:
    return experiment.trainer("maml").evaluate(loop.latest(out))


def last(entry: Any) -> Any:
    """The figures of the last parameters, by condition."""
    return entry["parameters"]["last"]["figures"]


# Training.


@pytest.mark.parametrize("method", ["maml", "fomaml"])
@pytest.mark.parametrize(
    "changes",
    [{}, LINEAR, COLOUR, {"adapt_norm": True, "inner_loss": "sum-over-k", "dtype": "float64", "clip_element": 0.01}],
    ids=["conv", "linear", "colour", "others"],
)
def test_resuming_gives_the_same_bits(tmp_path: Path, folder: Path, method: str, changes: dict[str, Any]) -> None:
    whole = run(tmp_path / "whole", small(folder, **changes), method)
    for iterations in (5, 10):
        run(tmp_path / "parts", small(folder, **changes, iterations=iterations), method)
    assert_same_bits(run(tmp_path / "parts", small(folder, **changes), method), whole)
    ends = [loop.latest(tmp_path / name) for name in ("parts", "whole")]
    assert_same_bits(ends[0].best, ends[1].best)
    assert ends[0].best is not None
    lines = [metrics.read(tmp_path / name / "metrics.jsonl") for name in ("parts", "whole")]
    validations = [[line for line in own if "validation" in line] for own in lines]
    assert validations[0] == validations[1]


@pytest.mark.parametrize("adapt_norm", [False, True])
@pytest.mark.parametrize("method", ["maml", "fomaml"])
def test_a_step_is_the_meta_gradient_on_the_tasks_of_the_stream(folder: Path, adapt_norm: bool, method: str) -> None:
    experiment = small(folder, adapt_norm=adapt_norm, steps=2, alpha=0.3)
    trainer, domain = experiment.trainer(method), experiment.domain
    state = trainer.step(trainer.start())[0]
    after, (figures,) = trainer.step(state)

    drawn = episodes.sample(domain.images_of("train"), 0, "train", 4, 4, ways=3, shots=2, queries=2, rotations=True)
    model = nets.conv_net((8, 8, 1), 3, 4, 2)

    def loss(params: Any, batch: Any) -> Any:
        return tm.softmax_cross_entropy(model.apply(params, batch["x"]), batch["y"])

    layer = {"w": True, "b": True, "gamma": adapt_norm, "beta": adapt_norm}
    value, grads = tm.meta_value_and_grad(
        loss,
        state["params"],
        drawn.support,
        drawn.query,
        0.3,
        2,
        order=2 if method == "maml" else 1,
        adapted={"hidden": [layer] * 2, "head": True},
    )
    expected, _ = tm.optim.adam(1e-3).update(grads, state["optimiser"], state["params"])
    assert_same_bits(after["params"], expected)
    assert figures["loss"] == value
    phi = tm.adapt(loss, state["params"], drawn.support, 0.3, 2, adapted={"hidden": [layer] * 2, "head": True})
    right = model.apply(phi, drawn.query["x"]).numpy().argmax(-1) == drawn.query["y"]
    assert figures["accuracy"] == pytest.approx(right.mean())


def test_the_inner_loss_scales_the_step(folder: Path) -> None:
    ends = []
    for changes in ({"alpha": 0.6}, {"alpha": 0.2, "inner_loss": "sum-over-k"}, {"alpha": 0.2}):
        trainer = small(folder, dtype="float64", **changes).trainer("maml")
        ends.append(trainer.step(trainer.start())[0]["params"])
    leaves = [tm.tree.leaves(end) for end in ends]
    for one, other in zip(*leaves[:2], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)  # a convolution's bias has a gradient of rounding errors
    assert max(np.abs(one - other).max() for one, other in zip(*leaves[::2], strict=True)) > 1e-4


def test_training_learns_to_tell_new_classes_apart(tmp_path: Path, folder: Path) -> None:
    few = {"shots": 1, "query_images": 3, "test_steps": 1, "eval_query": 5, "filters": 8, "meta_batch": 8}
    often = {"iterations": 120, "validate_every": 120, "validation_tasks": 100, "eval_tasks": 100}
    settings = small(folder, learning_rate=0.01, **few, **often)
    trainer: Any = settings.trainer("maml")
    before = trainer.validate(trainer.start())["validation_accuracy"]
    run(tmp_path, settings)
    lines = metrics.read(tmp_path / "metrics.jsonl")
    (after,) = [line["validation_accuracy"] for line in lines if "validation" in line]
    assert before < 0.6
    assert after > 0.75
    losses = [line for line in lines if "loss" in line]
    assert losses[-1]["loss"] < 0.6 * losses[0]["loss"]
    assert losses[-1]["accuracy"] > losses[0]["accuracy"] + 0.2
    assert all(line["images_per_second"] > 0 for line in losses)
    figures = last(evaluated(tmp_path, settings))
    for kind in KINDS:
        assert figures[f"{kind}, 5 query"]["mean"][0] < 0.45
        assert figures[f"{kind}, 5 query"]["mean"][1] > 0.7


def test_the_best_in_validation_is_kept(tmp_path: Path, folder: Path) -> None:
    run(tmp_path, small(folder))
    lines = [line for line in metrics.read(tmp_path / "metrics.jsonl") if "validation" in line]
    assert [line["iteration"] for line in lines] == [3, 6, 9, 12]
    assert all(line["validation"] == 1 - line["validation_accuracy"] for line in lines)
    best = min(lines, key=lambda line: line["validation"])
    kept = loop.latest(tmp_path).best
    assert kept is not None
    assert (kept["iteration"], kept["error"]) == (best["iteration"], best["validation"])


# Evaluation.


def test_the_evaluation_is_what_one_task_after_the_other_gives(tmp_path: Path, folder: Path) -> None:
    settings = small(folder, adapt_norm=True, iterations=4)
    run(tmp_path, settings)
    found = last(evaluated(tmp_path, settings))
    params = loop.latest(tmp_path).state["params"]
    domain: Any = settings.domain
    model, drawn_from = domain.model(), domain.images_of("test")

    def loss(params: Any, batch: Any) -> Any:
        return tm.softmax_cross_entropy(model.apply(params, batch["x"]), batch["y"])

    right: dict[tuple[str, int], Any] = {(kind, q): np.zeros((5, 7)) for kind in KINDS for q in (2, 5)}
    for task in range(7):
        drawn = episodes.sample(drawn_from, 0, "test", task, 1, ways=3, shots=2, queries=5, rotations=True)
        x, y = (drawn.query[name].reshape(1, 3, 5, *drawn.query[name].shape[2:]) for name in "xy")
        for k in range(5):
            phi = tm.adapt(loss, params, drawn.support, 0.4, k)
            statistics = model.statistics(phi, drawn.support["x"])
            for q in (2, 5):
                images_of, labels = x[:, :, :q].reshape(1, 3 * q, 8, 8, 1), y[:, :, :q].reshape(1, 3 * q)
                together = model.apply(phi, images_of).numpy()
                right["transductive", q][k, task] = (together.argmax(-1) == labels).mean()
                alone = [model.apply(phi, images_of[:, i : i + 1], statistics).numpy() for i in range(3 * q)]
                right["inductive", q][k, task] = (np.concatenate(alone, 1).argmax(-1) == labels).mean()
    for (kind, q), expected in right.items():
        own = found[f"{kind}, {q} query"]
        np.testing.assert_allclose(own["mean"], expected.mean(1), rtol=1e-12)
        np.testing.assert_allclose(own["half_width"], 1.96 * expected.std(1, ddof=1) / np.sqrt(7), rtol=1e-12)
        assert own["diverged"] == 0
    assert found["transductive, 2 query"] != found["inductive, 2 query"]


def test_the_number_of_tasks_evaluated_at_a_time_does_not_matter(tmp_path: Path, folder: Path) -> None:
    settings = small(folder, iterations=4)
    run(tmp_path, settings)
    found = [last(evaluated(tmp_path, small(folder, iterations=4, eval_batch=n))) for n in (1, 3, 7, 100)]
    assert found[0] == found[1] == found[2] == found[3]


def test_an_evaluation_holds_few_tasks_at_a_time(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of MiniImagenet together would be gigabytes."""
    settings = small(folder, iterations=4, eval_tasks=12, validation_tasks=12)
    drawn: list[Any] = []
    draw = FewShotImages._test

    def counted(self: Any, *arguments: Any) -> Any:
        gc.collect()
        assert sum(array() is not None for array in drawn) <= 2
        test = draw(self, *arguments)
        drawn.append(weakref.ref(next(iter(test.inputs.values()))))
        return test

    monkeypatch.setattr(FewShotImages, "_test", counted)
    run(tmp_path, settings)
    evaluated(tmp_path, settings)
    assert len(drawn) > 10


def test_tasks_that_leave_all_bounds_count_as_wrong(tmp_path: Path, folder: Path) -> None:
    settings = small(folder, iterations=4)
    run(tmp_path, settings)
    found = last(evaluated(tmp_path, small(folder, iterations=4, alpha=1e38)))
    for own in (found["transductive, 2 query"], found["transductive, 5 query"]):
        assert own["diverged"] == 7
        assert own["mean"][0] > 0
        assert own["mean"][-1] == 0


def test_every_seed_is_evaluated_on_the_same_tasks_of_the_test_classes(tmp_path: Path, folder: Path) -> None:
    found = []
    for name, changes in (("a", {}), ("b", {"seed": 1}), ("c", {"eval_seed": 1})):
        settings = small(folder, iterations=4, learning_rate=1e-30, eval_steps=3, **changes)
        state = run(tmp_path / name, settings)
        if name == "b":
            first = loop.latest(tmp_path / "a")
            trained = loop.latest(tmp_path / "b")._replace(state=first.state, best=first.best)
            found.append(settings.trainer("maml").evaluate(trained))
            assert state["stream"]["seed"] == 1
        else:
            found.append(evaluated(tmp_path / name, settings))
    assert found[0]["parameters"] == found[1]["parameters"]
    assert found[0]["parameters"] != found[2]["parameters"]
    assert found[0]["protocol"]["split"] == "test"


# The data.


def test_a_missing_data_set_names_the_command_that_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, settings in EXPERIMENTS.items():
        if name.startswith("glyphs"):
            continue
        monkeypatch.setenv("TINYMAML_DATA", str(tmp_path))
        with pytest.raises(FileNotFoundError, match=rf"tinymaml data {settings.domain.dataset}"):
            settings.trainer("maml")


def test_glyphs_need_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYMAML_DATA", str(tmp_path))
    small_ones = {"meta_batch": 2, "filters": 4, "iterations": 1, "validate_every": 1, "validation_tasks": 2}
    settings = EXPERIMENTS["glyphs-5way-1shot"].replaced(**small_ones, eval_tasks=2, eval_steps=3)
    run(tmp_path / "run", settings)
    entry = evaluated(tmp_path / "run", settings)
    assert (entry["protocol"]["dataset"], entry["protocol"]["data"]) == ("glyphs", "glyphs")


def test_the_folder_of_the_data(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYMAML_DATA", str(folder))
    assert small(folder, data=None).domain.images_of("train").name == "small"
    monkeypatch.setenv("TINYMAML_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"small\.h5 is not there"):
        small(folder, data=None).domain.images_of("train")
    assert small(folder).domain.images_of("train").name == "small"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 9}, "9 ways, but small has 8 train classes"),
        ({"shots": 9}, "class train0 of small has 10 images, a task takes 11 of a class"),
        ({"query_images": 9}, "class train0 of small has 10 images, a task takes 11 of a class"),
    ],
)
def test_data_that_do_not_suffice(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(folder, **changes).trainer("maml").ready()


def test_more_query_images_evaluated_than_there_are(tmp_path: Path, folder: Path) -> None:
    """Which is said before training begins, and where it is asked for afterwards."""
    message = "class test0 of small has 10 images, a task takes 11 of a class"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, small(folder, iterations=4, eval_query=9))
    assert not any(tmp_path.iterdir())
    run(tmp_path, small(folder, iterations=4))
    with pytest.raises(ValueError, match=message):
        evaluated(tmp_path, small(folder, iterations=4, eval_query=9))


def test_a_run_does_not_go_on_with_other_images(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        write_small(tmp_path / name, seed=seed)
    run(tmp_path / "run", small(tmp_path / "one", iterations=4))
    with pytest.raises(ValueError, match="the data of images have changed since this run began"):
        run(tmp_path / "run", small(tmp_path / "other"))
    run(tmp_path / "run", small(write_small(tmp_path)))  # the same images elsewhere


# The settings.


def test_the_experiments_have_the_papers_settings() -> None:
    assert len(EXPERIMENTS) == 11
    settings_of = {name: SimpleNamespace(**one.settings("maml")) for name, one in EXPERIMENTS.items()}
    for name, settings in settings_of.items():
        way, shot = name.split("-")[-2 - name.endswith("noconv") :][:2]
        assert (f"{settings.ways}way", f"{settings.shots}shot") == (way, shot)
        assert settings.eval_query == 15
        assert settings.iterations == (2_000 if name.startswith("glyphs") else 60_000)
        assert (settings.learning_rate, settings.eval_tasks) == (1e-3, 600)
        assert settings.eval_steps == 10
    omniglot, twenty = settings_of["omniglot-5way-5shot"], settings_of["omniglot-20way-1shot"]
    assert (omniglot.steps, omniglot.test_steps, omniglot.alpha, omniglot.meta_batch, omniglot.query_images) == (
        1,
        3,
        0.4,
        32,
        5,
    )
    assert (twenty.steps, twenty.test_steps, twenty.alpha, twenty.meta_batch, twenty.query_images) == (5, 5, 0.1, 16, 1)
    assert omniglot.clip_element is None
    for shots, batch, bound in ((1, 4, 0.1333), (5, 2, 0.6667)):
        one = settings_of[f"miniimagenet-5way-{shots}shot"]
        assert (one.steps, one.test_steps, one.alpha, one.meta_batch, one.query_images) == (5, 10, 0.01, batch, 15)
        assert one.clip_element == pytest.approx(bound, abs=1e-4)
        assert one.inner_loss == "sum-over-k"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 1}, "ways must be at least 2, got 1"),
        ({"shots": 0}, "shots must be at least 1, got 0"),
        ({"query_images": 0}, "query_images must be at least 1"),
        ({"validation_tasks": 0}, "validation_tasks must be at least 1"),
        ({"eval_batch": 0}, "eval_batch must be at least 1"),
        ({"eval_query": 0}, "eval_query must be at least 1"),
        ({"hidden": (0,)}, "hidden needs positive numbers"),
        ({"test_steps": 11}, "test_steps must be at most eval_steps, 10, got 11"),
        ({"inner_loss": "sum"}, "inner_loss must be one of mean, sum-over-k, got 'sum'"),
        ({"network": "resnet"}, "network must be one of conv, mlp"),
        ({"alpha": float("nan")}, "alpha must be a positive number, got nan"),
        ({"clip_element": 0.0}, "clip_element must be a positive number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(tmp_path, **{"eval_steps": 10, **changes}).domain.check(small(tmp_path, eval_steps=10).training)
