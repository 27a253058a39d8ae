"""A run that was stopped or killed goes on to the same bits as one that never was."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT

pytest.importorskip("h5py", reason="checkpoints need h5py: pip install 'tinymaml[train]'")

from tests.cases.experiment_cases import tiny
from tinymaml import tree
from tinymaml.experiments.sinusoid.domain import Sinusoids
from tinymaml.meta.maml import NonFiniteError
from tinymaml.train import checkpoint, loop, metrics


def run(folder: Path, method: str = "maml", **changes: Any) -> Any:
    return loop.train(folder, tiny(**changes).trainer(method))


def assert_same_bits(one: Any, other: Any) -> None:
    assert tree.flatten(one)[1] == tree.flatten(other)[1]
    for a, b in zip(tree.leaves(one), tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("method", ["maml", "fomaml", "pretrained", "oracle"])
def test_resuming_gives_the_same_bits(tmp_path: Path, method: str) -> None:
    whole = run(tmp_path / "whole", method)
    run(tmp_path / "parts", method, iterations=27)
    run(tmp_path / "parts", method, iterations=41)
    assert_same_bits(run(tmp_path / "parts", method), whole)
    ends = [loop.latest(tmp_path / folder) for folder in ("parts", "whole")]
    assert_same_bits(ends[0].best, ends[1].best)
    assert (ends[0].best is not None) == (method in ("maml", "fomaml"))


def test_resuming_gives_the_same_bits_with_learned_step_sizes_across_a_block_of_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sinusoids, "BLOCK", 7)
    whole = run(tmp_path / "whole", learn_alpha=True)
    monkeypatch.setattr(Sinusoids, "BLOCK", 11)
    run(tmp_path / "parts", learn_alpha=True, iterations=33)
    assert_same_bits(run(tmp_path / "parts", learn_alpha=True), whole)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    run(tmp_path)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file())
    run(tmp_path)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()) == before


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path, iterations=20)
    with pytest.raises(loop.SettingsDiffer, match=r"alpha = 0.01, this one has 0.02: take another --out"):
        run(tmp_path, alpha=0.02)
    with pytest.raises(loop.SettingsDiffer, match="validation_tasks = 10, this one has 20"):
        run(tmp_path, validation_tasks=20)
    with pytest.raises(loop.SettingsDiffer, match="method = maml, this one has fomaml"):
        run(tmp_path, "fomaml")


def test_metrics_go_on_after_the_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, iterations=40)
    whole = (tmp_path / "metrics.jsonl").read_text()
    with (tmp_path / "metrics.jsonl").open(
        "a"
    ) as file:  # what a killed run leaves: lines past the checkpoint, one torn
        file.write('{"iteration": 50, "loss": 1.0, "seconds": 1.0}\n{"iteration": 60, "lo')
    run(tmp_path, iterations=60)
    lines = [line for line in metrics.read(tmp_path / "metrics.jsonl") if "loss" in line]
    assert [line["iteration"] for line in lines] == [10, 20, 30, 40, 50, 60]
    assert (tmp_path / "metrics.jsonl").read_text().startswith(whole)
    assert lines[4]["loss"] != 1.0


def test_divergence_names_the_iteration_the_checkpoint_and_what_to_try(tmp_path: Path) -> None:
    trainer: Any = tiny().trainer("maml")
    good = trainer.step

    def step(state: Any, count: int) -> Any:
        if state["stream"]["next_task"] >= 4 * 33:
            raise NonFiniteError("the query loss is not finite")
        return good(state, count)

    trainer.step = step
    with pytest.raises(loop.TrainingDiverged) as caught:
        loop.train(tmp_path, trainer)
    message = str(caught.value)
    for part in (
        "diverged at iteration 33",
        "query loss is not finite",
        "is at iteration 20",
        "--learning-rate",
        "--alpha",
    ):
        assert part in message


def test_a_learning_rate_that_is_far_too_large_diverges(tmp_path: Path) -> None:
    with np.errstate(all="ignore"), pytest.raises(loop.TrainingDiverged, match="no checkpoint yet"):
        run(tmp_path, learning_rate=1e18, iterations=10, checkpoint_every=10)


def test_a_signal_saves_a_checkpoint_and_stops(tmp_path: Path) -> None:
    trainer: Any = tiny(checkpoint_every=50).trainer("maml")
    good = trainer.step

    def step(state: Any, count: int) -> Any:
        if state["stream"]["next_task"] == 4 * 12:
            signal.raise_signal(signal.SIGTERM)
        return good(state, count)

    trainer.step = step
    with pytest.raises(loop.Interrupted, match="stopped at iteration 13"):
        loop.train(tmp_path, trainer)
    found = checkpoint.latest(tmp_path / "checkpoints")
    assert found is not None
    assert found.iteration == 13
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    whole = run(tmp_path / "whole", checkpoint_every=50)
    assert_same_bits(run(tmp_path, checkpoint_every=50), whole)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to hand on")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_side_by_side_training_hands_a_signal_on_and_stops_after_checkpoints(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "tinymaml", "train", "sinusoid", "--method", "all", "--jobs", "2"]
    command += ["--hidden", "8", "--log-every", "5", "--checkpoint-every", "1000000", "--iterations", "1000000"]
    parent = subprocess.Popen(
        [*command, "--out", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    with parent:
        places = [tmp_path / method / "metrics.jsonl" for method in ("maml", "fomaml")]
        deadline = time.monotonic() + 60
        while not all(path.exists() and path.stat().st_size for path in places):  # both are in the midst of training
            assert time.monotonic() < deadline
            time.sleep(0.05)
        parent.send_signal(number)
        _, message = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert message.splitlines()[-2].endswith("the same command goes on from there")
    assert shlex.split(message.splitlines()[-1]) == ["tinymaml", *command[3:], "--out", str(tmp_path)]
    for method in ("maml", "fomaml"):
        assert loop.latest(tmp_path / method).iterations > 0
    assert not (tmp_path / "pretrained").exists()


KILLS = 20


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_killed_twenty_times_nothing_is_lost(tmp_path: Path) -> None:
    """SIGKILL at random moments: what a checkpoint held is never lost, and the end is the same to the bit."""
    command = [sys.executable, "-m", "tinymaml", "train", "sinusoid", "--method", "maml", "--json-progress"]
    command += ["--hidden", "8", "--meta-batch", "4", "--shots", "3", "--query-points", "3"]
    command += ["--log-every", "5", "--checkpoint-every", "5"]
    environment = {**os.environ, "TINYMAML_NUMBA": "0", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def start(folder: Path, iterations: int) -> subprocess.Popen[str]:
        options = ["--out", str(folder), "--iterations", str(iterations)]
        return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)

    rng = random.Random(0)
    reached, killed_in_training = 0, 0
    places = tmp_path / "killed" / "maml" / "checkpoints"
    for _ in range(KILLS):
        child = start(tmp_path / "killed", 1_000_000)
        assert child.stdout is not None
        with child:
            line = child.stdout.readline()  # training has begun
            time.sleep(rng.uniform(0, 0.15))
            child.kill()
            lines = [line, *child.stdout.read().splitlines()]
        assert child.returncode == -signal.SIGKILL
        # A line is printed just before its checkpoint is written, so the one before the last has one.
        whole = [json.loads(text)["iteration"] for text in lines if text.rstrip().endswith("}")]
        found = checkpoint.latest(places)
        here = 0 if found is None else found.iteration
        assert here >= max([reached, *whole[:-1]])
        killed_in_training += here > reached
        reached = here
    assert killed_in_training > KILLS // 2
    for folder in ("killed", "whole"):
        with start(tmp_path / folder, reached + 7) as child:
            child.communicate()
        assert child.returncode == 0
    ends = [checkpoint.latest(tmp_path / folder / "maml" / "checkpoints") for folder in ("killed", "whole")]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0].iteration == ends[1].iteration == reached + 7
    assert_same_bits(ends[0].state["state"], ends[1].state["state"])
    records = [metrics.read(tmp_path / folder / "maml" / "metrics.jsonl") for folder in ("killed", "whole")]
    assert [{**line, "seconds": 0} for line in records[0]] == [{**line, "seconds": 0} for line in records[1]]
    assert not list((tmp_path / "killed").rglob("*.tmp*"))
