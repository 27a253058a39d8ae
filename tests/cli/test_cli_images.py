"""The command line of the image experiments, from training to pictures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")

from tests.cases.experiment_cases import SMALL, write_small
from tinymaml.cli import main
from tinymaml.experiments.registry import FEW_SHOT


def options(folder: Path, **changes: Any) -> list[str]:
    found = ["--data", str(folder)]
    for name, value in {**SMALL, **changes}.items():
        if name not in ("ways", "shots"):
            found += ["--" + name.replace("_", "-"), *map(str, value if isinstance(value, tuple) else (value,))]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_small(tmp_path)


@pytest.mark.parametrize("name", FEW_SHOT)
def test_help_names_every_setting_with_its_default(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", name, "--help"])
    assert stop.value.code == 0
    text = "".join(capsys.readouterr().out.split())
    said: set[str] = {"order"}  # which stands beside --method; of a setting of several methods the first one's text
    for part in FEW_SHOT[name].parts():
        for field in dataclasses.fields(part):
            if field.name not in said:
                said.add(field.name)
                fixed = field.name in ("ways", "shots", "network")
                assert (f"--{field.name.replace('_', '-')}" in text) != fixed
                assert fixed or "".join(field.metadata["help"].split()) in text
    method: Any = FEW_SHOT[name].method("maml")
    assert f"(default:{method.alpha})" in text
    assert "--order{1,2}" in text


def test_both_orders_side_by_side_from_training_to_pictures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    out, name = tmp_path / "run", "omniglot-5way-1shot"
    for order in ("2", "1"):
        assert main(["train", name, "--order", order, "--out", str(out), *options(folder)]) == 0
    printed = capsys.readouterr()
    assert "98.7" not in printed.out  # which is of Omniglot, and of another network
    assert "iteration 12 of 12, accuracy" in printed.err
    assert "validation" in printed.err
    found = json.loads((out / "results.json").read_text())
    assert found["experiment"] == name
    assert set(found["methods"]) == {"maml", "fomaml"}
    for method, entry in found["methods"].items():
        assert (out / method / "checkpoints" / "000000012.h5").exists()
        figures = entry["parameters"]["last"]["figures"]
        assert list(figures) == [f"{kind}, {q} query" for kind in ("transductive", "inductive") for q in (1, 5)]
        for shares in figures.values():
            assert len(shares["mean"]) == len(shares["half_width"]) == 5
        protocol = entry["protocol"]
        assert (protocol["split"], protocol["tasks"], protocol["query_per_class"]) == ("test", 7, [1, 5])
        assert (protocol["alpha"], protocol["inner_loss"], protocol["seed"]) == (0.4, "mean", 0)
        assert len(protocol["data"]) == 64
        assert {"machine", "versions", "seconds", "iterations"} < set(entry)
        assert entry["parameters"]["best in validation"]["iteration"] in (3, 6, 9, 12)
    assert found["methods"]["maml"]["parameters"] != found["methods"]["fomaml"]["parameters"]

    # Evaluating again takes the protocol of the training, and what is given instead of it.
    assert main(["evaluate", name, "--out", str(out)]) == 0
    again = json.loads((out / "results.json").read_text())["methods"]
    assert all(again[method] == found["methods"][method] for method in again)
    assert main(["evaluate", name, "--order", "1", "--eval-tasks", "4", "--out", str(out)]) == 0
    again = json.loads((out / "results.json").read_text())["methods"]
    assert [again[method]["protocol"]["tasks"] for method in ("maml", "fomaml")] == [7, 4]
    assert main(["plot", name, "--out", str(out)]) == 0
    assert {path.name for path in (out / "figures").iterdir()} == {"error.png", "training.png"}
    capsys.readouterr()
    assert main(["plot", "omniglot-5way-5shot", "--out", str(out)]) == 1
    assert "is of omniglot-5way-1shot, not of omniglot-5way-5shot" in capsys.readouterr().err


def test_progress_as_json(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", "omniglot-5way-1shot", "--json-progress", "--out", str(tmp_path / "run"), *options(folder)]
    assert main(argv) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["iteration"] for line in lines] == [3, 6, 9, 12]
    assert all({"loss", "accuracy", "images_per_second", "seconds"} < set(line) for line in lines)
    assert ["validation_accuracy" in line for line in lines] == [False, True, True, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--dataset", "nothing"], "nothing.h5 is not there: tinymaml data folder --name nothing"),
        (["--query-images", "10"], "class train0 of small has 10 images, a task takes 11 of a class"),
        (["--alpha", "0"], "alpha must be a positive number, got 0.0"),
        (["--eval-query", "0"], "eval_query must be at least 1, got 0"),
        (["--test-steps", "5"], "test_steps must be at most eval_steps, 4, got 5"),
    ],
)
def test_errors_are_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert main(["train", "omniglot-5way-1shot", "--out", str(tmp_path / "run"), *options(folder), *given]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("tinymaml: ")
    assert said.count("\n") == 1


def test_methods_and_orders_are_not_mixed_up(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (
        ["train", "omniglot-5way-1shot", "--method", "fomaml", "--order", "1"],
        ["train", "omniglot-5way-1shot", "--order", "3"],
        ["train", "navigation", "--order", "1"],
        ["train", "omniglot-5way-1shot", "--ways", "7"],
        ["train", "omniglot-6way-1shot"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 2
    assert "omniglot-6way-1shot" in capsys.readouterr().err
