"""Training and evaluating in reinforcement learning: methods, resuming to the same bits, the command line."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="environments need gymnasium: pip install 'tinymaml[rl]'")
pytest.importorskip("mujoco", reason="environments need mujoco: pip install 'tinymaml[rl]'")
pytest.importorskip("h5py", reason="checkpoints need h5py: pip install 'tinymaml[train]'")

from tests.cases import rl_environments  # noqa: F401  # registers them
from tests.train.test_resume import ROOT, assert_same_bits
from tinymaml import tree
from tinymaml.cli import main
from tinymaml.experiments.control import training as rl
from tinymaml.experiments.control.settings import EXPERIMENTS, RLSettings
from tinymaml.meta.maml import NonFiniteError
from tinymaml.train import checkpoint, loop, metrics, results

TINY: dict[str, Any] = {
    "meta_batch": 3,
    "rollouts": 3,
    "pooled_rollouts": 6,
    "horizon": 12,
    "hidden": (8,),
    "iterations": 6,
    "checkpoint_every": 2,
    "validate_every": 3,
    "eval_goals": 3,
    "eval_rollouts": 3,
    "eval_steps": 2,
    "finetune_alphas": (0.1, 0.5),
    "curvature_share": 0.5,
}

OPTIONS = [f"--{name.replace('_', '-')}" for name in TINY]


def options(**changes: Any) -> list[str]:
    """As options of the command line."""
    found: list[str] = []
    for name, value in {**TINY, **changes}.items():
        values = value if isinstance(value, tuple) else (value,)
        found += [f"--{name.replace('_', '-')}", *map(str, values)]
    return found


def settings_of(name: str, **changes: Any) -> RLSettings:
    return dataclasses.replace(EXPERIMENTS[name], **{**TINY, **changes})


def run(folder: Path, settings: RLSettings, method: str = "maml") -> Any:
    return loop.train(
        folder,
        settings,
        method,
        lambda: rl.start_state(settings, method),
        rl.stepper(settings, method),
        validate=rl.validator(settings, method),
    )


def test_recorded_and_not_trains_to_the_same_bits(tmp_path: Path) -> None:
    states = [run(tmp_path / str(record), settings_of("navigation", record=record)) for record in (True, False)]
    for one, other in zip(*map(tree.leaves, states), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["navigation", "cheetah-direction", "ant-velocity"])
@pytest.mark.parametrize("method", rl.METHODS)
def test_methods(name: str, method: str, tmp_path: Path) -> None:
    settings = settings_of(name, iterations=4)
    state = run(tmp_path, settings, method)
    start = rl.start_state(settings, method)
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(tree.leaves(state["params"]), tree.leaves(start["params"]), strict=True)
    ]
    assert all(moved) == (method != "random")
    entry = rl.evaluate(settings, method, loop.latest(tmp_path))
    parameters = entry["parameters"]
    returns = parameters["last"]["figures"]["new goals"]
    assert len(returns["mean"]) == (1 if method == "oracle" else 3)
    assert np.isfinite(returns["mean"]).all()
    searched = {} if method in ("maml", "oracle") else {"new goals": ["0.1", "0.5"]}
    assert {condition: list(tried) for condition, tried in entry["step_size_search"].items()} == searched
    lines = metrics.read(tmp_path / "metrics.jsonl")
    if method != "random":
        assert parameters["best in validation"]["iteration"] == 3
        trained = [line for line in lines if "loss" in line]
        gained = [line["return_1" if method == "maml" else "return_0"] for line in trained]
        assert parameters["best in training"]["iteration"] == int(np.argmax(gained))
        for part in ("sampling", "adaptation", "outer"):
            assert all(line[f"seconds_{part}"] > 0 for line in trained)
        assert all(line["kl"] <= settings.max_kl for line in trained)
    results.merge(tmp_path / "results.json", name, method, entry)
    from tinymaml.experiments.control import table as rl_table

    assert results.NAMES[method] in rl_table.table(results.load(tmp_path / "results.json", name))


def test_it_learns() -> None:
    """A few iterations of navigation: far better after a step than at first, and than without the step."""
    settings = dataclasses.replace(EXPERIMENTS["navigation"], horizon=30, rollouts=10, meta_batch=10, hidden=(32, 32))
    state, step = rl.start_state(settings, "maml"), rl.stepper(settings, "maml")
    history = []
    for _ in range(25):
        state, figures = step(state)
        history.append((figures[0]["return_0"], figures[0]["return_1"]))
    first, last = np.mean(history[:3], 0), np.mean(history[-5:], 0)
    assert last[1] > first[1] + 3
    assert last[1] > last[0] + 2


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 2},
        {"curvature": "finite-difference"},
        {"outer": "vpg"},
        {"outer": "ppo"},
        {"record": False},
        {"dtype": "float64"},
        {"gae": 0.9},
    ],
    ids=str,
)
def test_settings(changes: dict[str, Any]) -> None:
    settings = settings_of("navigation", **changes)
    state, step = rl.start_state(settings, "maml"), rl.stepper(settings, "maml")
    before = state["params"]
    for _ in range(3):
        state, figures = step(state)
        assert f"return_{settings.steps}" in figures[0]
    assert state["params"]["log_std"].dtype == settings.dtype
    assert not np.array_equal(before["log_std"], state["params"]["log_std"])


def test_the_authors_difference_approaches_the_exact_curvature() -> None:
    """Of a short vector, as the step of the difference is 1 / |theta| times it."""
    settings = settings_of("navigation", dtype="float64", curvature_share=1.0, activation="tanh")  # without kinks
    bench, rng = rl.Workbench(settings, "maml"), np.random.default_rng(0)
    params, sampler = bench.policy.init(rng, np.float64), bench.sampler(3, 3)
    goals = bench.goals(rng, 3)
    support = bench.batch(sampler(params, goals, (0,)))
    phi = bench.adapted(params, support, np.asarray(settings.alpha))
    query = bench.batch(sampler(phi, goals, (1,)))
    query |= bench.sampled_with(phi, query)
    v = 1e-3 * rng.standard_normal(len(rl._vector(params)))
    exact, difference = (
        rl._product(dataclasses.replace(settings, curvature=kind), bench, params, [support], query)(v)
        for kind in ("exact", "finite-difference")
    )
    assert difference == pytest.approx(exact, abs=1e-4 * np.abs(exact).max())


def test_recorded_and_eager_updates_are_alike() -> None:
    states = []
    for recorded in (True, False):
        settings = settings_of("cheetah-velocity", record=recorded, dtype="float64")
        state = rl.start_state(settings, "maml")
        states.append(rl.stepper(settings, "maml")(state)[0]["params"])
    for one, other in zip(*map(tree.leaves, states), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "changes"), [("navigation", {}), ("ant-direction", {}), ("navigation", {"outer": "ppo"})]
)
def test_a_resumed_run_has_the_same_bits(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """Whatever the number of workers was."""
    whole = run(tmp_path / "whole", settings_of(name, **changes, workers=1))
    run(tmp_path / "parts", settings_of(name, **changes, iterations=2, workers=3))
    run(tmp_path / "parts", settings_of(name, **changes, iterations=4, workers=2))
    resumed = run(tmp_path / "parts", settings_of(name, **changes))
    assert_same_bits(resumed, whole)
    lines = [metrics.read(tmp_path / part / "metrics.jsonl") for part in ("whole", "parts")]
    clean = [[{k: v for k, v in line.items() if not k.startswith("seconds")} for line in own] for own in lines]
    assert clean[0] == clean[1]


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole" / "maml", settings_of("navigation", iterations=30))
    command = [sys.executable, "-m", "tinymaml", "train", "navigation", "--no-evaluate", "--json-progress"]
    command += ["--out", str(tmp_path / "killed"), *options(iterations=30)]
    places = tmp_path / "killed" / "maml" / "checkpoints"
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not list(places.glob("*.h5")):
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all("return_1" in json.loads(line) for line in done.stdout.splitlines())
    found = checkpoint.latest(places)
    assert found is not None
    assert_same_bits(found.state["state"], whole)


def test_a_users_environment(tmp_path: Path) -> None:
    """Through Gymnasium alone: actions that are numbered, and those that are not."""
    for discrete in (True, False):
        settings = dataclasses.replace(
            EXPERIMENTS["navigation"], **{**TINY, "horizon": 30, "rollouts": 8, "environment": "tests/Pole-v0"}
        )

        class Options(type(settings)):  # type: ignore[misc]
            @property
            def options(self, discrete: bool = discrete) -> dict[str, Any]:
                return {"discrete": discrete}

        settings = Options(**dataclasses.asdict(settings))
        state, step = rl.start_state(settings, "maml"), rl.stepper(settings, "maml")
        gained = []
        for _ in range(12):
            state, figures = step(state)
            gained.append(figures[0]["return_1"])
        assert ("log_std" in state["params"]) != discrete
        assert np.mean(gained[-3:]) > np.mean(gained[:3])


def test_a_policy_that_diverges_stops_with_the_last_good_checkpoint_named(tmp_path: Path) -> None:
    settings = settings_of("navigation", iterations=4, outer="vpg", learning_rate=1e-3)
    step = rl.stepper(settings, "maml")

    def spoilt(state: Any, count: int = 1) -> Any:
        state, figures = step(state, count)
        if state["iteration"] == 3:
            state = {**state, "params": tree.map(lambda x: np.full_like(x, np.nan), state["params"])}
        return state, figures

    with pytest.raises(
        loop.TrainingDiverged, match=r"diverged at iteration 3: .*not finite.*checkpoints, is at iteration 2"
    ):
        loop.train(tmp_path, settings, "maml", lambda: rl.start_state(settings, "maml"), spoilt)


def test_fine_tuning_that_diverges_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_of("navigation", iterations=1)
    run(tmp_path, settings, "random")
    returns = rl._Evaluation.returns

    def spoilt(self: Any, params: Any, goals: Any, alpha: float, key: Any) -> Any:
        if alpha == 0.5:
            raise NonFiniteError("the policy's actions are not finite")
        return returns(self, params, goals, alpha, key)

    monkeypatch.setattr(rl._Evaluation, "returns", spoilt)
    entry = rl.evaluate(settings, "random", loop.latest(tmp_path))
    assert entry["step_size_search"]["new goals"]["0.5"] is None
    assert entry["protocol"]["alpha"] == 0.1


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    out = str(tmp_path)
    for method in ("maml", "pretrain", "oracle", "random"):
        assert main(["train", "navigation", "--method", method, "--out", out, *options(iterations=3)]) == 0
    said = capsys.readouterr().out
    assert "mean return on new goals after inner steps" in said
    assert "-11.68" not in said  # which is of longer episodes and another network
    for name in ("returns", "training"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 1000
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found["methods"]) == {"maml", "pretrained", "oracle", "random"}
    assert main(["evaluate", "navigation", "--out", out, "--eval-goals", "2", "--method", "maml"]) == 0
    assert json.loads((tmp_path / "results.json").read_text())["methods"]["maml"]["protocol"]["tasks"] == 2
    assert main(["show", "navigation", "--run", out, "--goal", "0.3", "0.1", "--steps", "2"]) == 0
    image = pytest.importorskip("PIL.Image", reason="animated pictures need pillow: pip install 'tinymaml[rl]'")
    with image.open(tmp_path / "policy.gif") as picture:
        assert picture.n_frames == 13
        assert picture.width > 2 * 240


def test_errors_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path)]
    for arguments, message in (
        (["train", "navigation", *out, "--rollouts", "0"], "rollouts must be at least 1, got 0"),
        (["train", "navigation", *out, "--horizon", "0"], "horizon must be at least 1, got 0"),
        (["train", "navigation", *out, "--discount", "1.5"], "discount must be in [0, 1], got 1.5"),
        (["train", "navigation", *out, "--device", "gpu"], "device must be cpu"),
        (["show", "navigation", "--run", str(tmp_path)], "has no checkpoint: train it first"),
        (["show", "navigation", "--run", str(tmp_path), "--steps", "0"], "steps must be at least 1, got 0"),
        (["show", "navigation", "--run", str(tmp_path), "--picture", "a.png"], "the name must end in .gif, got a.png"),
    ):
        assert main(arguments) == 1
        assert message in capsys.readouterr().err
    assert main(["train", "navigation", *out, "--no-evaluate", *options(iterations=1)]) == 0
    assert main(["show", "navigation", "--run", str(tmp_path), "--goal", "3", "0"]) == 1
    assert "goal must be 2 numbers in [-0.5, 0.5], got [3.0, 0.0]" in capsys.readouterr().err
    assert main(["train", "navigation", *out, *options(alpha=0.2)]) == 1
    assert "holds a run with alpha = 0.1, this one has 0.2" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["gymnasium", "mujoco"])
def test_missing_extras_are_named(missing: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from tinymaml.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "train", "navigation", "--out", str(tmp_path), *options()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == f"tinymaml: {missing} is not installed: pip install 'tinymaml[rl]'"
