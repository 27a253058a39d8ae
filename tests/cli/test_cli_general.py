"""The command line for any set of images and any environment, with several seeds, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")

from tests.cases.experiment_cases import SMALL, TINY, write_small
from tests.conftest import ROOT
from tinymaml.cli import main
from tinymaml.experiments.registry import EXPERIMENTS, GENERAL
from tinymaml.train import loop


def options(settings: dict[str, Any], **changes: Any) -> list[str]:
    """Settings as options."""
    found = []
    for name, value in {**settings, **changes}.items():
        found += ["--" + name.replace("_", "-"), *map(str, value if isinstance(value, tuple) else (value,))]
    return found


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The line on standard error of a command that is refused, in whichever way."""
    try:
        assert main(list(argv)) in (1, 2)
    except SystemExit as stop:
        assert stop.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    last: str = captured.err.splitlines()[-1]
    return last


class TestImages:
    @pytest.fixture
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A working folder with the small data set in its data/."""
        (tmp_path / "data").mkdir()
        write_small(tmp_path / "data")
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("TINYMAML_DATA", raising=False)
        return tmp_path

    @pytest.mark.parametrize("network", ["conv", "mlp"])
    def test_from_training_to_pictures(self, network: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
        given = options(SMALL, network=network, **({"hidden": (8, 8)} if network == "mlp" else {}))
        assert main(["train", "images", *given]) == 0
        folder = Path("runs/small-3way-2shot")
        results = json.loads((folder / "results.json").read_text())
        assert results["experiment"] == "images"
        assert results["methods"]["maml"]["settings"]["network"] == network
        assert str(folder / "figures" / "training.png") in capsys.readouterr().out
        assert (folder / "figures" / "training.png").exists()

        # Evaluated again, as it was trained; another protocol is taken from the options.
        before = results["methods"]["maml"]["parameters"]
        assert main(["evaluate", "images", "--out", str(folder)]) == 0
        assert json.loads((folder / "results.json").read_text())["methods"]["maml"]["parameters"] == before
        assert main(["evaluate", "images", "--out", str(folder), "--method", "maml", "--eval-tasks", "5"]) == 0
        after = json.loads((folder / "results.json").read_text())["methods"]["maml"]
        assert after["protocol"]["tasks"] == 5
        assert after["settings"]["ways"] == 3
        assert "maml" in capsys.readouterr().out.lower()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"ways": 9}, "9 ways, but small has 8 train classes"),
            (
                {"shots": 9},
                "class train0 of small has 10 images, a task takes 11 of a class: 9 shots and 2 query images",
            ),
            (
                {"query_images": 11},
                "class train0 of small has 10 images, a task takes 13 of a class: 2 shots and 11 query images",
            ),
            # Of the evaluation, but said before training begins.
            (
                {"eval_query": 15},
                "class test0 of small has 10 images, a task takes 17 of a class: 2 shots and 15 query images",
            ),
            ({"dataset": "larger"}, "data/larger.h5 is not there"),
            ({"ways": 1}, "ways must be at least 2, got 1"),
        ],
    )
    def test_what_the_data_do_not_suffice_for_is_said_before_training(
        self, changes: dict[str, Any], message: str, here: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["train", "images", *options(SMALL, **changes)]) == 1
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert not list(here.glob("runs/**/checkpoints"))

    def test_an_evaluation_for_which_they_do_not_suffice(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["train", "images", "--no-evaluate", *options(SMALL, iterations=2)]) == 0
        run = ("evaluate", "images", "--out", "runs/small-3way-2shot")
        assert main([*run, "--eval-query", "9"]) == 1
        message = "class test0 of small has 10 images, a task takes 11 of a class: 2 shots and 9 query images"
        assert message in capsys.readouterr().err

    def test_the_folder_of_a_run_must_be_named_where_nothing_else_tells_it(
        self, here: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert "--out" in refused(capsys, "evaluate", "images")

    def test_another_task_in_the_same_folder_is_refused(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        given = ("train", "images", "--no-evaluate", "--out", "runs/mine")
        assert main([*given, *options(SMALL, iterations=2)]) == 0
        capsys.readouterr()
        assert main([*given, *options(SMALL, iterations=2, ways=4)]) == 1
        assert "holds a run with ways = 3, this one has 4" in capsys.readouterr().err


CONTROL = {
    "horizon": 10,
    "rollouts": 4,
    "hidden": (8,),
    "meta_batch": 4,
    "iterations": 3,
    "validate_every": 2,
    "eval_goals": 3,
    "eval_rollouts": 4,
    "eval_steps": 1,
    "workers": 1,
}


class TestControl:
    @pytest.fixture(autouse=True)
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A working folder with a module that registers an environment."""
        pytest.importorskip("gymnasium", reason="needs gymnasium: pip install 'tinymaml[rl]'")
        text = (ROOT / "tests/users/problems/chase.py").read_text(encoding="utf-8")
        (tmp_path / "chase_of_mine.py").write_text(text.replace("users/Chase-v0", "users/Pursuit-v0"), encoding="utf-8")
        (tmp_path / "fails.py").write_text("raise RuntimeError('it is\\nnot ready')\n")
        (tmp_path / "lacks.py").write_text("import no_such_package\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
        return tmp_path

    def test_from_training_to_pictures(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
        given = ["--environment", "users/Pursuit-v0", "--import", "chase_of_mine"]
        assert main(["train", "control", *given, *options(CONTROL)]) == 0
        folder = Path("runs/users-Pursuit-v0")
        assert "Pictures:" in capsys.readouterr().out
        results = json.loads((folder / "results.json").read_text())
        before = results["methods"]["maml"]
        assert before["settings"]["environment"] == "users/Pursuit-v0"
        again = ["evaluate", "control", "--out", str(folder), "--import", "chase_of_mine"]
        assert main(again) == 0
        after = json.loads((folder / "results.json").read_text())["methods"]["maml"]
        assert after["parameters"] == before["parameters"]

    @pytest.mark.parametrize(
        ("module", "message"),
        [
            ("chaise", "import: there is no module 'chaise', on Python's path or in "),
            ("chase_of_mine.py", " (without .py: chase_of_mine)"),
            ("fails", "import: the module 'fails' cannot be imported: RuntimeError: it is not ready"),
            (
                "lacks",
                "import: the module 'lacks' cannot be imported: ModuleNotFoundError: No module named ",
            ),
        ],
    )
    def test_a_module_that_is_not_there_or_fails(
        self, module: str, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said = refused(capsys, "train", "control", "--environment", "users/Pursuit-v0", "--import", module)
        assert message in said

    def test_an_environment_that_is_not_there(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "environment: which one?" in refused(capsys, "train", "control", *options(CONTROL))
        assert main(["train", "control", "--environment", "No-v0", *options(CONTROL)]) == 1
        assert "environment: Gymnasium has none of the name 'No-v0'" in capsys.readouterr().err
        assert not list(here.glob("runs/**/checkpoints"))


class TestSeeds:
    def train(self, out: Path, *more: str) -> int:
        return main(
            ["train", "sinusoid", "--no-evaluate", "--out", str(out), *options({**TINY, "iterations": 4}), *more]
        )

    def test_each_has_a_folder_and_is_what_it_should_be(self, tmp_path: Path) -> None:
        assert self.train(tmp_path / "several", "--seeds", "0-2") == 0
        several = sorted((tmp_path / "several").iterdir())
        assert [folder.name for folder in several] == ["seed-0", "seed-1", "seed-2"]
        trained = [loop.latest(folder / "maml") for folder in several]
        assert [one.settings["seed"] for one in trained] == [0, 1, 2]
        assert [one.state["stream"]["seed"] for one in trained] == [0, 1, 2]

        assert self.train(tmp_path / "one", "--seed", "2") == 0
        one = loop.latest(tmp_path / "one" / "maml")
        both = [of.state["params"][0]["w"].tobytes() for of in (one, *trained)]
        assert both[0] == both[3] and len(set(both)) == 3

    def test_a_list_of_seeds_goes_on_where_it_was(self, tmp_path: Path) -> None:
        assert self.train(tmp_path, "--seeds", "7,3") == 0
        before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("**/*.h5")}
        assert len(before) == 2
        assert self.train(tmp_path, "--seeds", "3,5,7") == 0
        after = {path: path.stat().st_mtime_ns for path in tmp_path.glob("**/*.h5")}
        assert len(after) == 3
        assert before.items() <= after.items()

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (["--seeds", "2-0"], "seeds are 0-4 or 0,3,7, got '2-0'"),
            (["--seeds", "1,1"], "seeds are 0-4 or 0,3,7, got '1,1'"),
            (["--seeds", "a"], "seeds are 0-4 or 0,3,7, got 'a'"),
            (["--seeds", "0-2", "--seed", "1"], "--seed and --seeds: give one of them"),
        ],
    )
    def test_what_are_no_seeds(
        self, given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert message in refused(capsys, "train", "sinusoid", "--out", str(tmp_path / "run"), *given)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["train", "sinusoid", "--method", "maml", "--finetune-alphas", "0.1"],
            "--finetune-alphas is no setting of maml, but of pretrained",
        ),
        (
            ["train", "sinusoid", "--method", "pretrained", "--steps", "2"],
            "--steps is no setting of pretrained, but of maml, fomaml",
        ),
        (
            ["evaluate", "sinusoid", "--method", "maml", "--finetune-alphas", "0.1"],
            "--finetune-alphas is no setting of maml, but of pretrained",
        ),
        (
            ["train", "sinusoid", "--order", "1", "--method", "maml", "--iterations", "1"],
            "not allowed with argument --order",
        ),
        (["train", "sinusoid", "--order", "3"], "argument --order: the order is 1 or 2, got '3'"),
        (["train", "sinusoid", "--order", "first"], "argument --order: the order is 1 or 2, got 'first'"),
        (["train", "sinusoids"], "there is no experiment 'sinusoids': did you mean sinusoid?"),
        (
            ["evaluate", "omniglot-5way-1-shot"],
            "there is no experiment 'omniglot-5way-1-shot': did you mean omniglot-5way-1shot or",
        ),
        (["train", "sinusoid", "--metabatch", "3"], "unrecognized arguments: --metabatch 3"),
    ],
)
def test_what_is_refused_by_its_name(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *argv)
    assert not list(tmp_path.iterdir())


def test_order_1_is_the_method_fomaml(tmp_path: Path) -> None:
    given = ["train", "sinusoid", "--no-evaluate", *options({**TINY, "iterations": 2}), "--out"]
    for out, method in (("one", ["--order", "1"]), ("other", ["--method", "fomaml"]), ("two", ["--order", "2"])):
        assert main([*given, str(tmp_path / out), *method]) == 0
    states = [loop.latest(tmp_path / out / "fomaml").state["params"][0]["w"].tobytes() for out in ("one", "other")]
    assert states[0] == states[1]
    assert (tmp_path / "two" / "maml" / "checkpoints").is_dir()


def test_every_option_is_of_one_thing() -> None:
    """A method's settings have other names than those of the domain and the loop, as one option is for one setting."""
    for experiment in EXPERIMENTS.values():
        for method in experiment.methods:
            names = [name for part in experiment.parts(method) for name in part.names()]
            assert len(names) == len(set(names)), experiment.name


def test_only_experiments_on_any_data_call_their_runs_after_them() -> None:
    assert all(experiment.general for experiment in GENERAL.values())
    assert not any(experiment.general for experiment in EXPERIMENTS.values())
    assert GENERAL["control"].needs == (("gymnasium", "rl"),)
    assert EXPERIMENTS["navigation"].needs == (("gymnasium", "rl"), ("mujoco", "rl"))
