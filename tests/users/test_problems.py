"""Problems of users' own, as they write them, through `tinymaml.fit`, `evaluate` and `load`."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")

import tinymaml as tm
from tests.conftest import ROOT
from tests.users.problems.oscillators import Oscillators
from tests.users.problems.reptile import Reptile
from tests.users.problems.sequences import Systems
from tinymaml.experiments.registry import EXPERIMENTS

FOLDER = Path(__file__).parent / "problems"
LOOP: dict[str, Any] = {
    "iterations": 150,
    "meta_batch": 10,
    "validate_every": 75,
    "checkpoint_every": 60,
    "log_every": 50,
    "validation_tasks": 10,
    "eval_tasks": 60,
}


class Problem(NamedTuple):
    """What is trained, after how many inner steps it is judged, and the share of the error that may then be left."""

    method: Any
    domain: Any
    step: int
    left: float
    loop: dict[str, Any]


SINUSOIDS = EXPERIMENTS["sinusoid"].replaced(activation="tanh", eval_shots=(10,), query_points=10)
REPTILE = Reptile(alpha=0.01, steps=10, rate=1.0)
PROBLEMS = {
    "oscillators": Problem(tm.methods.MAML(steps=2, alpha=0.02, learning_rate=5e-3), Oscillators(), 10, 0.6, {}),
    "sequences": Problem(
        tm.methods.MAML(alpha=0.3, learning_rate=1e-2),
        Systems(),
        5,
        0.4,
        {"iterations": 40, "meta_batch": 4, "validate_every": 20, "checkpoint_every": 15, "eval_steps": 5},
    ),
    "reptile, sinusoids": Problem(REPTILE, SINUSOIDS, 10, 0.6, {}),
    "reptile, oscillators": Problem(REPTILE, Oscillators(), 10, 0.85, {}),
}
SLOW = ["reptile, oscillators"]  # what the others together show
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in PROBLEMS]


def fit(problem: Problem, out: Path, **changes: Any) -> Any:
    return tm.fit(problem.method, problem.domain, out=out, progress=False, **{**LOOP, **problem.loop, **changes})


def assert_same_state(one: Any, other: Any) -> None:
    """Of all that was learned, to the bit."""
    leaves = [tm.tree.flatten(learned.state) for learned in (one, other)]
    assert leaves[0][1] == leaves[1][1]
    for a, b in zip(leaves[0][0], leaves[1][0], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The run of a problem, which is trained when it is first asked for."""
    runs: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in runs:
            runs[name] = fit(PROBLEMS[name], tmp_path_factory.mktemp("run"))
        return runs[name]

    return of


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_problem_is_short_and_imports_the_package_alone(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if line.strip()]) < 40
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
    assert imported <= {"tinymaml", "numpy", "gymnasium", "dataclasses", "oscillators"}


@pytest.mark.parametrize("name", NAMES)
def test_adaptation_helps_and_is_shown(name: str, trained: Any) -> None:
    run, problem = trained(name), PROBLEMS[name]
    (figures,) = run.entry["parameters"]["last"]["figures"].values()
    assert figures["mean"][problem.step] < problem.left * figures["mean"][0]
    saved = json.loads((run.folder / "results.json").read_text())
    assert saved["methods"][run.method] == run.entry
    assert len((run.folder / run.method / "metrics.jsonl").read_text().splitlines()) >= 3
    assert run.method in run.table().lower()
    assert run.experiment.name in run.table()


@pytest.mark.parametrize("name", ["oscillators", "reptile, sinusoids"])
def test_pictures(name: str, trained: Any) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    paths = trained(name).plot("svg")
    assert "training.svg" in [path.name for path in paths]
    assert all(path.stat().st_size > 1000 for path in paths)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name: str, trained: Any, tmp_path: Path) -> None:
    run, problem = trained(name), PROBLEMS[name]
    half = {**LOOP, **problem.loop}["iterations"] // 2 - 3
    assert fit(problem, tmp_path, iterations=half, evaluate=False) is None
    assert not (tmp_path / "results.json").exists()
    again = fit(problem, tmp_path)
    assert again.entry["parameters"] == run.entry["parameters"]
    both = [tm.load(one.folder, problem.method, problem.domain, best=False) for one in (run, again)]
    assert both[0].iteration == both[1].iteration == {**LOOP, **problem.loop}["iterations"]
    assert_same_state(*both)


@pytest.mark.parametrize("name", NAMES)
def test_recorded_or_not_the_bits_are_the_same(name: str, tmp_path: Path) -> None:
    problem = PROBLEMS[name]
    both = []
    for record in (True, False):
        out = tmp_path / str(record)
        fit(problem, out, iterations=3, validate_every=2, record=record, eval_tasks=5)
        both.append(tm.load(out, problem.method, problem.domain, best=False))
    assert_same_state(*both)
    of_each = [json.loads((tmp_path / str(record) / "results.json").read_text()) for record in (True, False)]
    measured = [entry["parameters"] for results in of_each for entry in results["methods"].values()]
    assert measured[0] == measured[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_tasks_evaluated_at_a_time_does_not_matter(name: str, trained: Any) -> None:
    run, problem = trained(name), PROBLEMS[name]
    before = run.entry["parameters"]
    again = tm.evaluate(run.folder, problem.method, problem.domain, progress=False, eval_batch=23)
    assert again.entry["parameters"] == before
    fewer = tm.evaluate(run.folder, problem.method, problem.domain, progress=False, eval_tasks=7)
    assert fewer.entry["parameters"] != before
    tm.evaluate(run.folder, problem.method, problem.domain, progress=False)


@pytest.mark.parametrize("name", NAMES)
def test_the_figures_are_those_of_the_parameters_that_are_loaded(name: str, trained: Any) -> None:
    run, problem = trained(name), PROBLEMS[name]
    learned = tm.load(run.folder, problem.method, problem.domain, best=False)
    domain = learned.experiment.domain
    tasks = {**LOOP, **problem.loop}["eval_tasks"]
    (test,) = domain.tests(0, "test", 0, tasks, np.float32)
    ((condition, inputs),) = test.inputs.items()
    (figures,) = run.entry["parameters"]["last"]["figures"].values()

    def loss(params: Any, batch: Any) -> Any:
        return tm.mse(learned.model.apply(params, batch["x"]), batch["y"])

    for steps in (0, 1, 2):
        params = tm.adapt(loss, learned.params, test.support, problem.method.alpha, steps)
        error = loss(params, {"x": inputs, "y": test.targets[condition]}).numpy()
        assert float(error.mean(dtype=np.float64)) == pytest.approx(figures["mean"][steps], rel=1e-6)


def test_best_parameters_are_loaded_unless_the_last_are_asked_for(trained: Any) -> None:
    run, problem = trained("oscillators"), PROBLEMS["oscillators"]
    best = tm.load(run.folder, problem.method, problem.domain)
    assert best.iteration == run.entry["parameters"]["best in validation"]["iteration"]
    assert best.state["params"] is best.params


def test_methods_side_by_side_in_a_folder(tmp_path: Path) -> None:
    few = {**LOOP, "iterations": 4, "progress": False, "eval_tasks": 5}
    tm.fit("maml", Oscillators(), out=tmp_path, **few)
    tm.fit("pretrained", Oscillators(), out=tmp_path, finetune_alphas=(0.01, 0.1), **few)
    run = tm.fit(Reptile(), Oscillators(), out=tmp_path, **few)
    assert list(run.results["methods"]) == ["maml", "pretrained", "reptile"]
    for word in ("MAML", "pretrained", "reptile"):
        assert word in run.table()


def test_progress_is_shown_unless_it_is_not_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {**LOOP, "iterations": 4, "eval_tasks": 5}
    run = tm.fit("maml", Oscillators(), out=tmp_path, **few)
    shown = capsys.readouterr().err
    assert "maml: iteration 4 of 4, loss" in shown
    assert "maml, test: task 5 of 5" in shown
    tm.fit("maml", Oscillators(), out=tmp_path, progress=False, **{**few, "iterations": 6})
    tm.evaluate(run.folder, "maml", Oscillators(), progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("change", [{"length": 9}, {"hidden": 12}])
def test_another_setting_of_the_domain_is_refused_by_its_name(change: dict[str, int], tmp_path: Path) -> None:
    problem, few = PROBLEMS["sequences"], {"iterations": 2, "eval_tasks": 4, "validate_every": 5}
    fit(problem, tmp_path, **few)
    (name,) = change
    other = problem._replace(domain=dataclasses.replace(problem.domain, **change))
    with pytest.raises(ValueError, match=rf"holds a run with {name} = \d+, this one has {change[name]}: take another"):
        fit(other, tmp_path, **{**few, "iterations": 4})


CHASE: dict[str, Any] = {
    "iterations": 12,
    "meta_batch": 10,
    "validate_every": 6,
    "checkpoint_every": 5,
    "eval_goals": 10,
    "alpha": 0.5,
    "progress": False,
}


@pytest.fixture(scope="module")
def chase() -> Any:
    """The domain of an environment of Gymnasium."""
    pytest.importorskip("gymnasium", reason="needs gymnasium: pip install 'tinymaml[rl]'")
    from tests.users.problems.chase import domain

    return domain


@pytest.fixture(scope="module")
def chase_run(chase: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tm.fit("maml", chase, out=tmp_path_factory.mktemp("chase"), **CHASE)


def test_adaptation_helps_a_policy_and_is_shown(chase_run: Any) -> None:
    (figures,) = chase_run.entry["parameters"]["last"]["figures"].values()
    assert figures["mean"][3] > 0.75 * figures["mean"][0]  # they are negative: a quarter of the way to 0
    assert "return" in chase_run.table()
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    assert "training.png" in [path.name for path in chase_run.plot()]


def test_training_a_policy_goes_on_to_the_same_bits_recorded_or_not(chase_run: Any, chase: Any, tmp_path: Path) -> None:
    tm.fit("maml", chase, out=tmp_path, evaluate=False, **{**CHASE, "iterations": 7, "record": False})
    again = tm.fit("maml", chase, out=tmp_path, **{**CHASE, "workers": 1})
    assert again.entry["parameters"] == chase_run.entry["parameters"]
    assert_same_state(*[tm.load(folder, "maml", chase, best=False) for folder in (chase_run.folder, tmp_path)])


def test_the_policy_that_is_loaded_earns_what_was_measured(chase_run: Any, chase: Any) -> None:
    from tests.users.problems.chase import Chase

    learned, rng = tm.load(chase_run.folder, "maml", chase, best=False), np.random.default_rng(0)
    returns = []
    for goal in (-1.0, 1.0) * 100:
        env = Chase()
        seen, earned = env.reset(options={"goal": [goal]})[0], 0.0
        for _ in range(chase.horizon):
            distribution = learned.model.apply(learned.params, seen[None, None])
            arrays = {name: part.numpy() for name, part in distribution.items()}
            action = learned.model.act(arrays, learned.model.noise(rng, (1, 1)))
            seen, reward, *_ = env.step(np.clip(action[0, 0], -1, 1))
            earned += reward
        returns.append(earned)
    (figures,) = chase_run.entry["parameters"]["last"]["figures"].values()
    assert abs(np.mean(returns) - figures["mean"][0]) < 3 * figures["half_width"][0]


def test_another_environment_is_refused(chase_run: Any) -> None:
    other = tm.Control(environment="Pendulum-v1", horizon=10, rollouts=10, hidden=(16,))
    with pytest.raises(ValueError, match=r"environment = users/Chase-v0, this one has Pendulum-v1: take another"):
        tm.fit("maml", other, out=chase_run.folder, **{**CHASE, "iterations": 13})


SCRIPT = """
import sys
import tinymaml as tm
sys.path.insert(0, {folder!r})
from oscillators import Oscillators

print("starts", flush=True)
try:
    run = tm.fit("maml", Oscillators(), out={out!r}, iterations=int(sys.argv[1]), log_every=20, checkpoint_every=10**6,
                 validate_every=10**6, meta_batch=5, eval_tasks=5, validation_tasks=5)
    print(run.entry["iterations"])
except tm.Interrupted as stop:
    print(stop)
"""


def test_ctrl_c_stops_after_a_checkpoint_and_the_same_script_goes_on(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(FOLDER), out=str(tmp_path / "run")))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, str(script), "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    metrics = tmp_path / "run" / "maml" / "metrics.jsonl"
    try:
        deadline = time.monotonic() + 120
        while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        said, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    match = re.search(r"stopped at iteration (\d+); the same command goes on from there", said)
    assert match is not None, said + errors
    more = int(match[1]) + 5
    done = subprocess.run(
        [sys.executable, str(script), str(more)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split() == ["starts", str(more)]
    first = json.loads(metrics.read_text().splitlines()[0])
    assert first["iteration"] == 20
