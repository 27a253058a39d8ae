"""The command line, as a user calls it: settings, errors in one line, a small run from start to pictures."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")

from tinymaml.cli import main
from tinymaml.experiments.registry import EXPERIMENTS

SMALL = [
    *("--iterations", "30", "--hidden", "8", "--meta-batch", "4", "--log-every", "10", "--checkpoint-every", "10"),
    *("--validation-tasks", "20", "--eval-tasks", "20", "--eval-steps", "3", "--eval-query", "20"),
]
ALL = ["--method", "maml", "fomaml", "pretrained", "oracle", "--finetune-alphas", "0.001", "0.01"]


def test_help_names_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "sinusoid", "--help"])
    assert stop.value.code == 0
    text = "".join(capsys.readouterr().out.split())  # without spaces, as lines are broken at hyphens too
    said: set[str] = {"order"}  # which stands beside --method; of a setting of several methods the first one's text
    for part in EXPERIMENTS["sinusoid"].parts():
        for field in dataclasses.fields(part):
            assert f"--{field.name.replace('_', '-')}" in text
            assert field.name in said or "".join(field.metadata["help"].split()) in text
            said.add(field.name)
    assert "(default:70000)" in text


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("tinymaml", "numpy", "Python", "cpu", "fast", "train", "bench"):
        assert word in out


def test_all_methods_from_training_to_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    out = tmp_path / "run"
    assert main(["train", "sinusoid", *ALL, "--jobs", "2", "--out", str(out), *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "alpha" in printed
    results = json.loads((out / "results.json").read_text())
    assert set(results["methods"]) == {"maml", "fomaml", "pretrained", "oracle"}
    for entry in results["methods"].values():
        figures = entry["parameters"]["last"]["figures"]
        assert list(figures) == ["5 support points", "10 support points", "20 support points"]
        for shots in figures.values():
            assert len(shots["mean"]) == len(shots["half_width"]) == 4
    assert (out / "figures" / "figure3.png").stat().st_size > 5000
    for method in ("maml", "pretrained"):
        assert len((out / method / "metrics.jsonl").read_text().splitlines()) == 3

    # Evaluating again gives the same figures; another protocol is taken from the options.
    before = results["methods"]["maml"]["parameters"]
    assert main(["evaluate", "sinusoid", "--out", str(out), *SMALL[-6:]]) == 0
    assert json.loads((out / "results.json").read_text())["methods"]["maml"]["parameters"] == before
    capsys.readouterr()
    assert main(["plot", "sinusoid", "--out", str(out)]) == 0
    assert "training.png" in capsys.readouterr().out


@pytest.mark.slow
def test_the_number_of_jobs_does_not_matter(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    found = []
    for jobs in ("1", "4"):
        out = tmp_path / jobs
        assert main(["train", "sinusoid", *ALL, "--jobs", jobs, "--out", str(out), *SMALL]) == 0
        methods = json.loads((out / "results.json").read_text())["methods"]
        found.append({name: entry["parameters"] for name, entry in methods.items()})
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "sinusoid", "--alpha", "-1"], "alpha must be a positive number, got -1.0"),
        (["train", "sinusoid", "--shots", "0"], "shots must be at least 1, got 0"),
        (["train", "sinusoid", "--phase", "3", "1"], "phase needs two numbers, the lower first, got (3.0, 1.0)"),
        (["train", "sinusoid", "--method", "all", "--jobs", "0"], "jobs must be at least 1, got 0"),
        (["evaluate", "sinusoid"], "has no trained method"),
        (["evaluate", "sinusoid", "--method", "maml"], "has no checkpoint: train it first"),
        (["plot", "sinusoid"], "results.json"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    assert main([*argv, "--out", str(tmp_path / "none")]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("tinymaml: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("alphas", [("1e12",), ("1e12", "0.01"), ("0.5", "0.2")])
def test_an_evaluation_in_which_every_task_diverges_is_an_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], alphas: tuple[str, ...]
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    argv = ["train", "sinusoid", "--method", "pretrained", "--out", str(tmp_path), *SMALL, "--eval-steps", "10"]
    assert main([*argv, "--finetune-alphas", *alphas]) == 0, capsys.readouterr().err
    entry = json.loads((tmp_path / "results.json").read_text())["methods"]["pretrained"]
    shots = entry["parameters"]["last"]["figures"]["5 support points"]
    printed = capsys.readouterr().out
    if alphas == ("1e12",):
        assert shots["diverged"] == 20
        assert shots["mean"][0] is not None
        assert shots["mean"][1:] == shots["mean_converged"][1:] == [None] * 10
        assert "pretrained, 5 points: diverged on 20; which is all" in printed
    if "0.01" in alphas:
        assert shots["diverged"] < 20


def test_one_task_has_a_mean_and_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    assert main(["train", "sinusoid", "--out", str(tmp_path), *SMALL, "--eval-tasks", "1"]) == 0
    assert "±" not in capsys.readouterr().out.partition("Pictures")[0].replace("mean ±", "")
    entry = json.loads((tmp_path / "results.json").read_text())["methods"]["maml"]
    shots = entry["parameters"]["last"]["figures"]["5 support points"]
    assert shots["half_width"] == [None] * 4


def test_a_damaged_checkpoint_is_reported_for_methods_trained_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", "sinusoid", *ALL, "--no-evaluate", "--out", str(tmp_path), *SMALL]
    assert main(argv) == 0
    newest = tmp_path / "maml" / "checkpoints" / "000000030.h5"
    newest.write_bytes(newest.read_bytes()[:-10])
    capsys.readouterr()
    assert main(argv) == 0
    said = capsys.readouterr().err
    assert "tinymaml: maml: " in said
    assert "000000030.h5 is torn" in said
    assert "going on from 000000020.h5" in said


def test_every_training_seed_is_tested_on_the_same_tasks(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    found = []
    for seed in ("0", "1"):
        assert main(["train", "sinusoid", "--seed", seed, "--out", str(tmp_path / seed), *SMALL]) == 0
        found.append(json.loads((tmp_path / seed / "results.json").read_text())["methods"]["maml"])
    amplitudes = [[sketch["amplitude"] for sketch in entry["details"]["sketches"]] for entry in found]
    assert amplitudes[0] == amplitudes[1]
    assert found[0]["parameters"] != found[1]["parameters"]


def test_unknown_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (
        ["train", "mnist"],
        ["train", "sinusoid", "--initialiser", "zeros"],
        ["train", "sinusoid", "--bogus"],
        [],
    ):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 2
    assert "invalid choice: 'zeros'" in capsys.readouterr().err


def test_missing_extras_are_named(tmp_path: Path) -> None:
    """Without h5py training says which extra to install; help and doctor work."""
    code = (
        "import sys; sys.modules['h5py'] = None\n"
        "from tinymaml.cli import main\n"
        "assert main(['doctor']) == 0\n"
        f"sys.exit(main(['train', 'sinusoid', '--out', {str(tmp_path)!r}, '--iterations', '1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1, done.stderr
    assert "pip install 'tinymaml[train]'" in done.stderr
