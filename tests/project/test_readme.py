"""The README's examples run, and say what they claim."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_the_first_examples_have_the_promised_length() -> None:
    counts = [len([line for line in code.splitlines() if line.strip()]) for code in EXAMPLES]
    assert counts[0] <= 10
    assert counts[1] <= 15


def test_the_hessian_vector_product(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(EXAMPLES[0])
    first, second, third = capsys.readouterr().out.splitlines()
    assert first != second == third
    import tinymaml as tm

    dense = tm.hessian(names["rosenbrock"], names["point"])["x"]["x"]
    np.testing.assert_allclose(
        tm.hvp(names["rosenbrock"], names["point"], names["direction"])["x"],
        dense @ names["direction"]["x"],
        rtol=1e-12,
    )


def test_maml_on_ones_own_loss() -> None:
    names = run(EXAMPLES[1])
    import tinymaml as tm

    w = 1 + names["rng"].normal(size=(16, 3, 1))
    support, query = names["batch"](w), names["batch"](w)
    before = names["loss"](tm.adapt(names["loss"], names["params"], support, 0.1, 0), query).numpy().mean()
    after = names["loss"](tm.adapt(names["loss"], names["params"], support, 0.1, 3), query).numpy().mean()
    assert after < 0.8 * before


def test_a_problem_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")
    assert len(EXAMPLES[2].splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    names = run(EXAMPLES[2].replace("iterations=2000", "iterations=60, eval_tasks=20, validation_tasks=20"))
    assert "oscillators: mean squared error" in capsys.readouterr().out
    figures = names["run"].entry["parameters"]["last"]["figures"]["new tasks"]
    assert figures["mean"][2] < 0.9 * figures["mean"][0]
    outputs = names["learned"].model.apply(names["learned"].params, np.zeros((1, 3, 1), np.float32))
    assert outputs.shape == (1, 3, 1)


def test_a_recorded_step(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(EXAMPLES[3])
    assert "launches" in capsys.readouterr().out
    value, grads = names["step"](names["params"], names["support"], names["query"])
    np.testing.assert_allclose(names["value"], value, rtol=1e-12)
    np.testing.assert_allclose(names["grads"]["w"], grads["w"], rtol=1e-9)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_the_core_is_as_short_as_claimed() -> None:
    core = ["tensor", "sweeps", "primitive", "tree"]
    assert sum(len((ROOT / "tinymaml" / "autodiff" / f"{name}.py").read_text().splitlines()) for name in core) < 900


@pytest.mark.usefixtures("gpu")
def test_on_a_gpu() -> None:
    names = run(EXAMPLES[3] + EXAMPLES[4])
    value, grads = names["step"](names["params"], names["support"], names["query"])
    np.testing.assert_allclose(names["value"], value, rtol=1e-11)
    np.testing.assert_allclose(names["grads"]["w"], grads["w"], rtol=1e-8)
