"""What a user is told who gets a domain, a method or a setting wrong: one line that says what is right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")

import tinymaml as tm

LOOP: dict[str, Any] = {"iterations": 2, "meta_batch": 2, "validate_every": 9, "eval_tasks": 2, "progress": False}


class Lines(tm.Domain):
    def model(self) -> Any:
        return tm.nn.mlp([1, 5, 1])

    def task(self, rng: Any, split: str) -> Any:
        x = rng.uniform(-1, 1, (8, 1))
        y = rng.normal() * x + rng.normal()
        return {"x": x[:3], "y": y[:3]}, {"x": x[3:], "y": y[3:]}


class Joint(tm.Method):
    """Learns from all tasks at once."""

    def init(self, problem: Any, rng: Any, dtype: Any) -> Any:
        return {"params": problem.model.init(rng, dtype)}

    def update(self, problem: Any, state: Any, batch: Any) -> Any:
        value, gradient = tm.value_and_grad(lambda params: tm.mean(problem.objective(params, batch[1])))(
            state["params"]
        )
        params = tm.tree.map(lambda p, g: p - 0.1 * g, state["params"], gradient)
        return {**state, "params": params}, {"loss": value}

    def predict(self, problem: Any, state: Any, support: Any, inputs: Any, steps: Any) -> Any:
        return tm.methods.predictions_after(problem, state["params"], 0.1, support, inputs, steps)


def part(n: int = 3, targets: int | None = None) -> Any:
    return {"x": np.ones((n, 1)), "y": np.ones((n if targets is None else targets, 1))}


def returning(what: Any) -> Any:
    """A domain whose tasks are this, a function of the random numbers."""
    return type("Lines", (Lines,), {"task": lambda self, rng, split: what(rng)})()


def with_(base: type, **changes: Any) -> Any:
    return type(base.__name__, (base,), changes)()


def test_what_is_right_works(tmp_path: Path) -> None:
    run = tm.fit(Joint(), Lines(), out=tmp_path, **LOOP)
    assert list(run.results["methods"]) == ["joint"]


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (type("Bare", (tm.Domain,), {"task": Lines.task})(), r"Bare has no model\(\) -> a network, such as nn\.mlp"),
        (type("Bare", (tm.Domain,), {"model": Lines.model})(), r"Bare has no task\(rng, split\) -> \(support, query\)"),
        (
            with_(Lines, model=lambda self: (1, 2)),
            r"Lines.model must return a network with init\(rng, dtype\) and apply\(params, x\).*got a tuple",
        ),
        (
            returning(lambda rng: (part(int(rng.integers(2, 9))), part())),
            r"Lines.task \(task \d\): support\['x'\] has shape \(\d, 1\), that of other tasks \(\d, 1\): all tasks",
        ),
        (returning(lambda rng: [part(), part()]), r"must return \(support, query\), each .*, got a list$"),
        (returning(lambda rng: (part(), None)), r"must return \(support, query\), each .*, got \(dict, NoneType\)$"),
        (returning(lambda rng: (part(), {"x": part()["x"]})), r'query must have "x" and "y", got \'x\'$'),
        (
            returning(lambda rng: (part(3, 4), part())),
            r"support must have a target for each input, its first axes are of 'x' 3 and 'y' 4$",
        ),
        (
            with_(Lines, loss=lambda self, o, y: tm.mean(tm.abs(o - y))),
            r"loss must return one number a task, shape \(2,\)",
        ),
        (
            with_(Lines, loss=lambda self, o, y: tm.mean(tm.abs(o - y), -1)),
            r"loss must return one number a task, shape \(2,\), as mse does; on support it returned shape \(2, 3\)",
        ),
    ],
)
def test_a_domain_that_is_none(domain: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, NotImplementedError), match=message) as caught:
        tm.fit("maml", domain, out=tmp_path, **LOOP)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "maml" / "checkpoints").exists()


PARAMS = {"params": [{"w": np.ones((1, 1, 1), np.float32)}]}


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize(
    ("method", "message"),
    [
        (type("Bare", (tm.Method,), {})(), r"Bare has no init\(problem, rng, dtype\) -> state"),
        (with_(Joint, init=lambda *a: {}), r'joint: init must return a dict with "params" and without "stream"'),
        (with_(Joint, init=lambda *a: [1]), r'joint: init must return a dict with "params".*, got list'),
        (
            with_(Joint, init=lambda self, problem, rng, dtype: {**PARAMS, "rng": rng}),
            r"joint: a state is of arrays of numbers alone, and state\['rng'\] is Generator",
        ),
        (with_(Joint, init=lambda *a: {**PARAMS, "rate": 0.5}), r"and state\['rate'\] is 0.5$"),
        (
            with_(Joint, update=lambda *a: ({}, {"loss": np.zeros(2)})),
            r"joint: the state that update returns has another structure .* dict with keys \['params'\], got dict with",
        ),
        (with_(Joint, update=lambda *a: None), r'joint: update must return \(state, {"loss": ...}\), got NoneType'),
        (with_(Joint, update=lambda self, p, s, b: s), r'joint: update must return \(state, {"loss": ...}\), got dict'),
        (
            with_(Joint, update=lambda self, p, s, b: (s, {})),
            r'joint: update must return figures with a "loss", got \[\]',
        ),
        (
            with_(Joint, predict=lambda self, problem, state, s, x, steps: s["x"]),
            r"joint: predict must return a dict with the names of its inputs, 'new tasks'.*, got ndarray",
        ),
        (
            with_(Joint, predict=lambda self, problem, state, support, inputs, steps: dict(inputs)),
            r"predict must return predictions \[steps, tasks, ...\], for 'new tasks' \[11, 2\] and more, got the shape",
        ),
    ],
)
def test_a_method_that_is_none(method: Any, message: str, record: bool, tmp_path: Path) -> None:
    with pytest.raises((ValueError, NotImplementedError), match=message) as caught:
        tm.fit(method, Lines(), out=tmp_path, record=record, **LOOP)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iteratons": 3}, r"lines has no setting 'iteratons': did you mean iterations\?"),
        ({"meta_batch": "a"}, "meta_batch must be a whole number, got 'a'"),
        ({"meta_batch": 2.0}, "meta_batch must be a whole number, got 2.0"),
        ({"meta_batch": 0}, "meta_batch must be at least 1, got 0"),
        ({"record": 1}, "record must be True or False, got 1"),
        ({"alpha": -1}, "alpha must be a positive number, got -1"),
        ({"clip_norm": "no"}, "clip_norm must be a number or None, got 'no'"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64, got 'float16'"),
    ],
)
def test_a_setting_that_there_is_not(settings: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        tm.fit("maml", Lines(), out=tmp_path, **{**LOOP, **settings})


@pytest.mark.parametrize(
    ("method", "domain", "message"),
    [
        (
            "maml",
            Lines,
            r"domain must be an instance of a subclass of tinymaml.Domain, got Lines, a class: give Lines\(\)",
        ),
        (tm.methods.MAML, Lines(), r"method must be a name, or an instance .*, got MAML, a class: give MAML\(\)"),
        ("mamal", Lines(), r"lines has no method 'mamal': did you mean maml or fomaml\?"),
        (Lines(), "maml", "domain must be an instance of a subclass of tinymaml.Domain, got 'maml'"),
        ("oracle", Lines(), "lines has no inputs that tell the task: there is no oracle for it"),
        (
            tm.Control.METHODS["maml"],
            Lines(),
            "MAMLPolicy is no method for lines, which has support and query sets: there",
        ),
        (
            tm.methods.MAML(),
            tm.Control(environment="CartPole-v1"),
            "maml learns from support and query sets, CartPole-v1 has",
        ),
        ("maml", tm.Control(), "environment: which one"),
    ],
)
def test_a_method_and_a_domain_that_do_not_go_together(method: Any, domain: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        tm.fit(method, domain, out=tmp_path, iterations=2, progress=False)


def test_settings_of_a_class_that_is_no_dataclass() -> None:
    class Points(Lines):
        KIND: ClassVar[str] = "is no setting"
        points: int = 5

    with pytest.raises(
        TypeError, match=r"Points has the settings points: write @dataclass\(frozen=True\) above its class"
    ):
        Points(points=7)
    with pytest.raises(TypeError, match="Points has the settings points"):
        Points()


def test_settings_of_one_name_in_the_domain_and_in_the_method(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Walks(Lines):
        steps: int = 5

    with pytest.raises(ValueError, match="MAML and Walks both have a setting 'steps': give it another name in one"):
        tm.fit("maml", Walks(), out=tmp_path, **LOOP)


def test_settings_are_numbers_and_text() -> None:
    @dataclass(frozen=True)
    class Odd(Lines):
        thing: Any = None

    with pytest.raises(
        ValueError, match="thing must be a number, True or False, text, or several of one of these, got None"
    ):
        Odd()


def test_a_list_is_taken_for_a_tuple() -> None:
    @dataclass(frozen=True)
    class Deep(Lines):
        hidden: tuple[int, ...] = (5, 5)

    assert Deep(hidden=[7]).hidden == (7,)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"hidden must be several, each a whole number, got \(7.5,\)"):
        Deep(hidden=[7.5])  # type: ignore[list-item,arg-type]


def test_another_network_of_the_same_settings_is_refused(tmp_path: Path) -> None:
    tm.fit(Joint(), Lines(), out=tmp_path, **LOOP)
    wider = with_(Lines, model=lambda self: tm.nn.mlp([1, 7, 1]))
    message = (
        r"another network: params\[0\]\['b'\] is float32 \[1, 1, 5\] there, and float32 \[1, 1, 7\] here: take another"
    )
    with pytest.raises(ValueError, match=message):
        tm.fit(Joint(), wider, out=tmp_path, **{**LOOP, "iterations": 4})
    with pytest.raises(ValueError, match=message):
        tm.evaluate(tmp_path, Joint(), wider)
    with pytest.raises(ValueError, match=message):
        tm.load(tmp_path, Joint(), wider)
    deeper = with_(Lines, model=lambda self: tm.nn.mlp([1, 5, 5, 1]))
    with pytest.raises(ValueError, match="another network: "):
        tm.load(tmp_path, Joint(), deeper)


def test_a_folder_is_for_one_domain(tmp_path: Path) -> None:
    tm.fit(Joint(), Lines(), out=tmp_path, **LOOP)
    other = type("Curves", (Lines,), {})()
    for method in (Joint(), "maml"):
        with pytest.raises(ValueError, match=r"results.json is of lines, not of curves: take another --out"):
            tm.fit(method, other, out=tmp_path, **LOOP)
    with pytest.raises(ValueError, match="holds a run of lines, not of curves"):
        tm.load(tmp_path, Joint(), other)
    with pytest.raises(ValueError, match="holds a run of lines, which is not in the package: give its domain"):
        tm.load(tmp_path, Joint())
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path / 'maml'} has no checkpoint: train it first")):
        tm.load(tmp_path, "maml", Lines())


def test_settings_of_an_evaluation(tmp_path: Path) -> None:
    tm.fit(Joint(), Lines(), out=tmp_path, **LOOP)
    with pytest.raises(ValueError, match=r"'eval_taks' is no setting of the evaluation: did you mean eval_tasks"):
        tm.evaluate(tmp_path, Joint(), Lines(), eval_taks=3)
    with pytest.raises(ValueError, match=r"'iterations' is no setting of the evaluation; there are device, eval_batch"):
        tm.evaluate(tmp_path, Joint(), Lines(), iterations=3)
