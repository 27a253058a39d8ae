"""Settings have types and ranges: what is outside is refused by name before anything begins. JSON gives them back."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.cases.experiment_cases import tiny
from tinymaml.cli import main
from tinymaml.experiments.registry import EXPERIMENTS
from tinymaml.experiments.sinusoid.domain import Sinusoids
from tinymaml.methods import Pretrained
from tinymaml.settings import Settings, kind_of
from tinymaml.train import memory
from tinymaml.train.supervised import SupervisedTrainer

NAMES = ("sinusoid", "omniglot-5way-1shot", "navigation", "ant-velocity")
ONE_OF_EACH = list({type(part): part for name in NAMES for part in EXPERIMENTS[name].parts()}.values())


def numbers(kind: type) -> list[Any]:
    """(settings, field) of every setting of that kind."""
    return [
        pytest.param(settings, field, id=f"{type(settings).__name__}-{field.name}")
        for settings in ONE_OF_EACH
        for field in dataclasses.fields(settings)
        if kind_of(settings.hints()[field.name]) is kind
    ]


def refuses(settings: Settings, name: str, value: Any) -> None:
    """With one line that names the setting and what was given."""
    several = isinstance(getattr(settings, name), tuple)
    given = (*getattr(settings, name)[1:], value) if several else value
    with pytest.raises(ValueError, match=rf"^{name} (must be|needs) [^\n]*, got ") as caught:
        dataclasses.replace(settings, **{name: given})
    assert str(given) in str(caught.value)


@pytest.mark.parametrize(("settings", "field"), numbers(float))
def test_floating_point_numbers_are_finite_and_in_range(settings: Settings, field: Any) -> None:
    for value in (math.nan, math.inf, -math.inf):
        refuses(settings, field.name, value)
    if field.metadata["positive"]:
        for value in (0.0, -1.0):
            refuses(settings, field.name, value)
    for bound, beyond in (("least", -1e-9), ("most", 1e-9)):
        if field.metadata[bound] is not None:
            refuses(settings, field.name, field.metadata[bound] + beyond)
            dataclasses.replace(settings, **{field.name: float(field.metadata[bound])})


@pytest.mark.parametrize(("settings", "field"), numbers(int))
def test_integers_are_counts_that_fit_64_bits(settings: Settings, field: Any) -> None:
    least = 1 if field.metadata["least"] is None else field.metadata["least"]
    for value in (least - 1, -1, 2**64, 10**400):
        refuses(settings, field.name, value)


def test_several_numbers_are_at_least_one() -> None:
    for name, make in (("hidden", Sinusoids), ("eval_shots", Sinusoids), ("finetune_alphas", Pretrained)):
        with pytest.raises(ValueError, match=rf"^{name} needs positive numbers, got \(\)"):
            make(**{name: ()})


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["sinusoid", "--method", "pretrained", "--finetune-alphas", "nan"],
            "finetune_alphas needs positive numbers, got (nan,)",
        ),
        (
            ["sinusoid", "--method", "all", "--finetune-alphas", "0.1", "inf"],
            "finetune_alphas needs positive numbers, got (0.1, inf)",
        ),
        (["sinusoid", "--x", "nan", "1"], "x needs finite numbers, got (nan, 1.0)"),
        (["navigation", "--log-std", "nan"], "log_std must be in [-20, 20], got nan"),
        (["navigation", "--eval-steps", "-1"], "eval_steps must be at least 1, got -1"),
        (["navigation", "--curvature-share", "1e-320"], "curvature_share must be in [1e-06, 1], got 1e-320"),
        (["sinusoid", "--seed", "9" * 23], f"seed must be at most {2**64 - 1}, got {'9' * 23}"),
        (["sinusoid", "--meta-batch", "100000000"], "smaller ones are needed: --meta-batch 100000000 (default: 25)"),
        (["sinusoid", "--hidden", "100000", "100000"], "needed: --hidden 100000 100000 (default: 40 40)"),
        (["navigation", "--hidden", "100000", "100000"], "needed: --hidden 100000 100000 (default: 100 100)"),
        (["glyphs-5way-1shot", "--filters", "100000"], "smaller ones are needed: --filters 100000 (default: 64)"),
        (["omniglot-5way-1shot-noconv", "--hidden", "100000", "100000"], "--hidden 100000 100000 (default: 256"),
    ],
)
def test_the_command_line_refuses_before_it_begins(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(memory, "_size", lambda: 100 * 10**9)
    assert main(["train", *argv, "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("tinymaml: ") and said.err.count("\n") == 1
    assert not said.out
    assert not (tmp_path / "run").exists()


def test_memory_that_runs_out_names_what_is_larger_than_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*arguments: Any) -> None:
        raise MemoryError("Unable to allocate 9 GiB for an array with shape (3, 3)")

    monkeypatch.setattr(SupervisedTrainer, "start", start)
    argv = ["train", "sinusoid", "--meta-batch", "50", "--no-evaluate", "--out", str(tmp_path)]
    assert main([*argv, "--iterations", "80000"]) == 1
    assert capsys.readouterr().err == (
        "tinymaml: there is not enough memory: Unable to allocate 9 GiB for an array with shape (3, 3); "
        "smaller ones are needed: --meta-batch 50 (default: 25)\n"
    )


def test_what_memory_is_needed_at_least_is_far_less_than_machines_have() -> None:
    for experiment in EXPERIMENTS.values():
        assert 0 < 4 * experiment.domain.least_numbers(experiment.training) < 10**9
        memory.check(experiment, experiment)


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_the_largest_seeds_are_seeds(seed: int) -> None:
    trainer = tiny(seed=seed, eval_seed=seed, hidden=(4,), meta_batch=2, validation_tasks=2).trainer("maml")
    state, figures = trainer.step(trainer.start(), 1)
    assert math.isfinite(figures[0]["loss"])
    validated = trainer.validate(state)
    assert validated is not None
    assert math.isfinite(validated["validation"])


@pytest.mark.parametrize("task", [-1, 2**63, 10**23])
def test_show_refuses_a_task_that_there_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str], task: int) -> None:
    assert main(["show", "glyphs-5way-1shot", "--out", str(tmp_path), "--task", str(task)]) == 1
    assert capsys.readouterr().err == f"tinymaml: task must be in [0, {2**63 - 1}], got {task}\n"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_they_come_back_from_json(name: str) -> None:
    for part in EXPERIMENTS[name].parts():
        found = json.loads(json.dumps(part.as_dict() | {"of a newer version": [1]}))
        assert type(part).from_dict(found) == part


@pytest.mark.parametrize("name", ["sinusoid", "omniglot-5way-1shot", "ant-direction"])
def test_a_value_of_another_type_is_named(name: str) -> None:
    experiment = EXPERIMENTS[name]
    values = experiment.settings("maml")
    for key, value in values.items():
        odd: list[Any] = ["x", 1, 1.5, True, None, [], [1], ["x"], [1.5], [[1]], {}, {"a": 1}, -1, 10**400]
        wrong = [other for other in odd if type(other) is not type(value)]
        for other in wrong:
            try:
                experiment.of({**values, key: other})
            except ValueError as error:
                assert "\n" not in str(error)
    for key, other in (
        ("seed", "x"),
        ("record", 1),
        ("hidden", [1, "x"]),
        ("hidden", 40),
        ("alpha", [0.1]),
        ("steps", 1.0),
    ):
        with pytest.raises(ValueError, match=f"^{key} cannot be "):
            experiment.of({**values, key: other})
