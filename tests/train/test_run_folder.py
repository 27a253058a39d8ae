"""A run's folder says what it is, and nothing takes it for something else; what cannot be used is said beforehand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")

from tests.conftest import ROOT
from tests.train.test_checkpoint import signed
from tinymaml.cli import main
from tinymaml.experiments.registry import EXPERIMENTS, RunOfAnother, check_run
from tinymaml.train import checkpoint, loop, results

TINY = ["--iterations", "4", "--hidden", "4", "--meta-batch", "2", "--eval-tasks", "2", "--eval-steps", "1"]
TRAIN = ["train", "sinusoid", "--no-evaluate", *TINY]


def put(run: Path, name: str, method: str = "maml", **said: Any) -> None:
    """A checkpoint of an experiment with its defaults, and what else it says."""
    settings = {"method": method, **EXPERIMENTS[name].settings("maml"), **said}
    checkpoint.write_numbered(run / method / "checkpoints", {"state": {}, "seconds": 1.0, "best": None}, settings, 1)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    assert said.err.startswith("tinymaml: ") and said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_run_is_of_one_experiment_and_method(name: str, said: bool) -> None:
    """Also one from before checkpoints said of what they are: then its settings say it."""
    settings = {**({"experiment": name} if said else {}), "method": "maml", **EXPERIMENTS[name].settings("maml")}
    for other, experiment in EXPERIMENTS.items():
        if other == name:
            check_run(Path("run/maml"), settings, experiment, "maml")
            with pytest.raises(RunOfAnother, match="run/maml holds a run of the method maml, not of oracle"):
                check_run(Path("run/maml"), settings, experiment, "oracle")
        else:
            with pytest.raises(RunOfAnother, match=f"run/maml holds a run of {name}, not of {other}"):
                check_run(Path("run/maml"), settings, experiment, "maml")


def test_the_repositorys_own_runs_are_of_their_experiments() -> None:
    """They are from before checkpoints said so, some from before there were all of today's settings."""
    for path in (ROOT / "docs" / "results").glob("*/results.json"):
        found = json.loads(path.read_text())
        for method, entry in found["methods"].items():
            check_run(path.parent, {"method": method, **entry["settings"]}, EXPERIMENTS[found["experiment"]], method)


def test_a_run_with_other_images_than_any_experiment_is_of_all_that_fit() -> None:
    settings = {**EXPERIMENTS["omniglot-5way-1shot"].settings("maml"), "dataset": "shapes"}
    check_run(Path("run"), settings, EXPERIMENTS["omniglot-5way-1shot"], "maml")
    with pytest.raises(RunOfAnother, match=r"a run of omniglot-5way-1shot or miniimagenet-5way-1shot or .*, not of"):
        check_run(Path("run"), settings, EXPERIMENTS["omniglot-5way-5shot"], "maml")


@pytest.mark.parametrize("said", [{}, {"experiment": "glyphs-5way-1shot"}])
@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_glyphs_are_not_evaluated_as_miniimagenet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, said: dict[str, str]
) -> None:
    put(tmp_path, "glyphs-5way-1shot", **said)
    # It would train on glyphs, too, if it took that folder's run for its own.
    options = ["--no-evaluate", "--dataset", "glyphs"] if command == "train" else []
    assert main([command, "miniimagenet-5way-5shot", *options, "--out", str(tmp_path)]) == 1
    expected = "holds a run of glyphs-5way-1shot, not of mini" if command == "evaluate" else "holds a run with "
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "results.json").exists()


def test_a_sinusoid_is_no_navigation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mujoco", reason="environments need mujoco: pip install 'tinymaml[rl]'")
    assert main([*TRAIN, "--out", str(tmp_path)]) == 0
    assert loop.latest(tmp_path / "maml").settings["experiment"] == "sinusoid"
    capsys.readouterr()
    for argv in (["evaluate", "navigation", "--out"], ["show", "navigation", "--run"]):
        assert main([*argv, str(tmp_path)]) == 1
        assert "maml holds a run of sinusoid, not of navigation" in one_line(capsys)
    results.merge(tmp_path / "results.json", "sinusoid", "maml", json.loads(_an_entry()))
    for command in ("plot", "train", "evaluate"):
        assert main([command, "navigation", "--out", str(tmp_path)]) == 1
        assert "results.json is of sinusoid, not of navigation: take another --out" in one_line(capsys)


def _an_entry() -> str:
    from tests.cases.results_cases import entry

    return json.dumps(entry(0.5))


def test_a_method_is_not_taken_for_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--out", str(tmp_path)]) == 0
    (tmp_path / "maml").rename(tmp_path / "fomaml")
    capsys.readouterr()
    assert main(["evaluate", "sinusoid", "--out", str(tmp_path)]) == 1
    assert "fomaml holds a run of the method maml, not of fomaml" in one_line(capsys)


def test_fewer_iterations_than_there_are_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--out", str(tmp_path), "--iterations", "6"]) == 0
    assert main([*TRAIN, "--out", str(tmp_path), "--iterations", "6"]) == 0
    capsys.readouterr()
    assert main([*TRAIN, "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "maml holds a run of 6 iterations, this one has 4: take another --out, or --iterations 6 to evaluate" in said


def test_a_run_of_a_newer_version_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not gone on with from an older checkpoint, in place of the newer ones."""
    argv = [*TRAIN, "--out", str(tmp_path), "--checkpoint-every", "1"]
    assert main(argv) == 0
    newest = tmp_path / "maml" / "checkpoints" / "000000004.h5"
    newest.write_bytes(signed(newest.read_bytes()[checkpoint.BLOCK :], version=checkpoint.FORMAT + 1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for again in (argv, [*argv, "--iterations", "9"], ["evaluate", "sinusoid", "--out", str(tmp_path)]):
        capsys.readouterr()
        assert main(again) == 1
        assert (
            "000000004.h5 was made by a newer tinymaml (format 2, this one reads 1): upgrade" in capsys.readouterr().err
        )
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_no_checkpoint_file_is_said_and_passed_over(tmp_path: Path) -> None:
    checkpoint.write_numbered(tmp_path, {"i": 1}, {}, 1)
    for name in ("²", "٣", "1e3", "-5", "x"):  # which are digits to some, and no numbers
        (tmp_path / f"{name}.h5").write_bytes(b"x")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "000000003.h5")
    (tmp_path / "000000002.h5").mkdir()
    said: list[str] = []
    found = checkpoint.latest(tmp_path, said.append)
    assert found is not None and found.iteration == 1
    expected = ["a pipe"] * hasattr(os, "mkfifo") + ["a folder"]
    assert len(said) == len(expected)
    for line, kind in zip(said, expected, strict=True):
        assert f"is {kind}, not a file; going on from 000000001.h5" in line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs on Windows")
@pytest.mark.parametrize("name", ["results.json", "maml/metrics.jsonl"])
def test_other_files_of_a_run_that_are_none_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "maml").mkdir()
    os.mkfifo(tmp_path / name)
    assert main([*TRAIN, "--out", str(tmp_path)]) == 1
    assert f"{tmp_path / name} is a pipe, not a file" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1, "experiment": "sinusoid", "methods": {"maml": {}}}'])
@pytest.mark.parametrize("method", ["maml", "all"])
def test_a_damaged_results_file_is_found_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, method: str
) -> None:
    (tmp_path / "results.json").write_text(text)
    assert main(["train", "sinusoid", *TINY, "--method", method, "--out", str(tmp_path)]) == 1
    assert "results.json" in one_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


NEEDED = [
    (["train", "sinusoid", "--out"], "h5py", "train"),
    (["train", "sinusoid", "--out"], "matplotlib", "train"),
    (["train", "sinusoid", "--out"], "tqdm", "train"),
    (["train", "sinusoid", "--method", "all", "--out"], "h5py", "train"),
    (["train", "glyphs-5way-1shot", "--out"], "h5py", "train"),
    (["train", "navigation", "--out"], "gymnasium", "rl"),
    (["train", "ant-velocity", "--out"], "mujoco", "rl"),
    (["evaluate", "sinusoid", "--out"], "h5py", "train"),
    (["evaluate", "glyphs-5way-1shot", "--out"], "tqdm", "train"),
    (["evaluate", "navigation", "--out"], "mujoco", "rl"),
    (["plot", "sinusoid", "--out"], "matplotlib", "train"),
    (["show", "glyphs-5way-1shot", "--out"], "matplotlib", "train"),
    (["show", "omniglot-5way-1shot", "--data"], "matplotlib", "train"),
    (["show", "navigation", "--run"], "PIL.Image", "rl"),
    (["show", "navigation", "--run"], "gymnasium", "rl"),
    (["show", "navigation", "--run"], "h5py", "train"),
    (["data", "omniglot", "--download", "--out"], "PIL.Image", "data"),
    (["data", "omniglot", "--download", "--out"], "h5py", "data"),
    (["data", "miniimagenet", "--from", "nothing", "--out"], "h5py", "data"),
    (["data", "folder", "--name", "mine", "--from", "nothing", "--out"], "PIL.Image", "data"),
]


@pytest.mark.parametrize(
    ("argv", "module", "extra"), NEEDED, ids=lambda own: " ".join(own) if isinstance(own, list) else own
)
def test_a_missing_extra_is_said_before_anything_is_done(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    module: str,
    extra: str,
) -> None:
    pytest.importorskip("mujoco", reason="environments need mujoco: pip install 'tinymaml[rl]'")
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: module == "tqdm", raising=False)
    if argv[0] == "plot":
        (tmp_path / "results.json").write_text('{"format": 1, "experiment": "sinusoid", "methods": {}}')
    before = list(tmp_path.iterdir())
    assert main([*argv, str(tmp_path / "new" if argv[0] in ("train", "data") else tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.err == f"tinymaml: {module.partition('.')[0]} is not installed: pip install 'tinymaml[{extra}]'\n"
    assert not said.out
    assert list(tmp_path.iterdir()) == before


def side_by_side(folder: Path, child: str) -> subprocess.CompletedProcess[str]:
    """Train two methods, by that program in place of Python."""
    program = folder / "child"
    program.write_text(f"#!{sys.executable}\n{child}")
    program.chmod(0o755)
    code = (
        "import sys\nfrom pathlib import Path\nfrom tinymaml.experiments import run\n"
        "from tinymaml.experiments.registry import EXPERIMENTS\n"
        "sys.executable, own = sys.argv[1], EXPERIMENTS['sinusoid']\n"
        "run.train_side_by_side(own, Path(sys.argv[2]), {'maml': [], 'oracle': []}, 2)"
    )
    command = [sys.executable, "-c", code, str(program), str(folder / "run")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no scripts as programs on Windows")
def test_children_that_say_a_lot_or_nonsense_do_not_hang(tmp_path: Path) -> None:
    """More on standard error than its pipe holds, with progress in between; of which the last lines are told."""
    done = side_by_side(
        tmp_path,
        "import sys\nfor i in range(3000):\n    print('x' * 100, file=sys.stderr)\n"
        'print(\'{"iteration": 1, "loss": null, "seconds": 1.0}\', flush=True)\n'
        "print('tinymaml: the end', file=sys.stderr)\nsys.exit(1)",
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("tinymaml: the end")
    assert done.stderr.count("x" * 100) < 3000
    done = side_by_side(tmp_path, "import time\nprint('nonsense', flush=True)\ntime.sleep(600)")
    assert done.returncode == 1
    assert "JSONDecodeError" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_children_end_with_their_parent_however_that_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tinymaml", "train", "sinusoid", "--method", "all", "--jobs", "2", *TINY]
    rare = ["--iterations", "100000000", "--log-every", "100000000", "--checkpoint-every", "100000000"]
    environment = {**os.environ, "TINYMAML_NUMBA": "0"}
    with subprocess.Popen([*command, *rare, "--out", str(tmp_path)], cwd=ROOT, env=environment) as parent:
        places = [tmp_path / method for method in ("maml", "fomaml")]
        until = time.monotonic() + 60
        while not all((place / "metrics.jsonl").exists() for place in places):  # both train
            assert time.monotonic() < until
            time.sleep(0.05)
        children = [json.loads((place / "lock").read_text())["pid"] for place in places]
        parent.send_signal(signal.SIGKILL)
    while any(_runs(child) for child in children):
        assert time.monotonic() < until
        time.sleep(0.05)
    for place in places:  # each after a checkpoint
        assert loop.latest(place).iterations > 0
        assert not (place / "lock").exists()
    assert not (tmp_path / "pretrained").exists()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
