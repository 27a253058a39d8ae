"""MiniImagenet's network at 84 x 84 meta-trains on images made here, from JPEG files through the loader and the command
line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py", reason="data sets need h5py: pip install 'tinymaml[data]'")
pytest.importorskip("PIL", reason="images need Pillow: pip install 'tinymaml[data]'")
pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")

from tests.cases.image_cases import encoded, lay_out
from tinymaml import tree
from tinymaml.cli import main
from tinymaml.tasks import miniimagenet, splits
from tinymaml.train import checkpoint

EACH = 4  # images of a class
CLASSES = {split: [f"n{10 * i + c:08}" for c in range(5)] for i, split in enumerate(("train", "validation", "test"), 1)}


def picture(label: int, which: int) -> bytes:
    """Stripes of a class's own colour and width, noise of the image's own; larger than 84 x 84, and not square."""
    rng = np.random.default_rng(label)
    colour, width = rng.integers(40, 215, 3), rng.integers(4, 20)
    stripes = (np.arange(120) // width % 2)[None, :, None] * colour[None, None, :]
    noise = np.random.default_rng([label, which]).integers(0, 40, (100, 120, 3))
    return encoded((stripes + noise).astype(np.uint8), "JPEG")


def test_the_network_meta_trains_through_the_real_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(splits, "load", lambda name: CLASSES)
    monkeypatch.setattr(miniimagenet, "IMAGES", EACH)
    labels = [label for own in CLASSES.values() for label in own]
    files = {f"{label}/{i}.jpg": picture(int(label[1:]), i) for label in labels for i in range(EACH)}
    source, data, out = lay_out(tmp_path / "images", files), tmp_path / "data", tmp_path / "run"
    target = data / "miniimagenet.h5"
    assert main(["data", "miniimagenet", "--from", str(source), "--out", str(target)]) == 0

    small = ["--iterations", "4", "--meta-batch", "1", "--query-images", "2", "--steps", "2", "--log-every", "1"]
    small += ["--validate-every", "4", "--validation-tasks", "2", "--eval-tasks", "3", "--eval-query", "3"]
    small += ["--eval-steps", "3", "--test-steps", "2", "--data", str(data), "--out", str(out)]
    assert main(["train", "miniimagenet-5way-1shot", *small]) == 0, capsys.readouterr().err
    assert "48.7" in capsys.readouterr().out  # the paper's figure stands beside ours

    state = checkpoint.load(max((out / "maml" / "checkpoints").glob("*.h5"))).state["state"]
    params = state["params"]
    shapes = [layer["w"].shape for layer in params["hidden"]]
    assert shapes == [(1, 3, 3, 3, 32), *[(1, 3, 3, 32, 32)] * 3]
    assert params["head"]["w"].shape == (1, 800, 5)
    assert sum(layer["w"].size + layer["b"].size for layer in params["hidden"]) == 28_640
    assert params["head"]["w"].size + params["head"]["b"].size == 4005
    assert all(np.isfinite(p).all() for p in tree.leaves(params))

    lines = [json.loads(line) for line in (out / "maml" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 4 and np.isfinite(losses).all()
    entry = json.loads((out / "results.json").read_text())["methods"]["maml"]
    figures = entry["parameters"]["last"]["figures"]
    assert [label.partition(",")[0] for label in figures] == ["transductive"] * 2 + ["inductive"] * 2
    # Stripes of five colours are easily told apart once a few steps are taken.
    after = figures["transductive, 1 query"]["mean"]
    assert after[-1] > after[0]
