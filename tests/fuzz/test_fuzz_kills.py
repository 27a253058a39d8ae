"""Runs killed at random moments, and what would be found of a run that was not as it should be."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")
if not hasattr(os, "fork"):
    pytest.skip("needs fork, which Windows does not have", allow_module_level=True)

from tests.fuzz import kills
from tinymaml.cli import main

TINY = ["--iterations", "4", "--hidden", "4", "--meta-batch", "2", "--log-every", "1", "--eval-tasks", "2"]


def test_killed_at_random() -> None:
    cases, failures = kills.run(0, 40, 10.0)
    assert not failures
    assert cases


@pytest.mark.slow
def test_killed_at_random_for_longer() -> None:
    cases, failures = kills.run(1, 1000, 200.0)
    assert not failures
    assert cases > 50


def test_what_differs_is_found(tmp_path: Path) -> None:
    """A line of metrics, a parameter, a result, a file left over."""
    whole, other = tmp_path / "whole", tmp_path / "other"
    for folder, seed in ((whole, "0"), (other, "1")):
        assert main(["train", "sinusoid", *TINY, "--seed", seed, "--no-evaluate", "--out", str(folder)]) == 0
        assert main(["evaluate", "sinusoid", "--out", str(folder)]) == 0
    metrics, end, results = "maml/metrics.jsonl", "maml/checkpoints/000000004.h5", "results.json"
    slower = json.loads((whole / results).read_text())
    slower["methods"]["maml"]["seconds"] = 99.0
    changes = {
        "the metrics differ": lambda folder: shutil.copy(other / metrics, folder / metrics),
        "the last checkpoints differ": lambda folder: shutil.copy(other / end, folder / end),
        "the results differ": lambda folder: shutil.copy(other / results, folder / results),
        r"the files differ: .*results\.json\.1\.tmp": lambda folder: (folder / "results.json.1.tmp").touch(),
        r"the files differ: .*metrics\.jsonl": lambda folder: (folder / metrics).unlink(),
        "": lambda folder: (folder / results).write_text(json.dumps(slower)),
    }
    for i, (message, change) in enumerate(changes.items()):
        copy = tmp_path / f"copy{i}"
        shutil.copytree(whole, copy)
        change(copy)
        if message:
            with pytest.raises(AssertionError, match=message):
                kills._same_runs(whole, copy, "maml")
        else:  # but how long it took
            kills._same_runs(whole, copy, "maml")
