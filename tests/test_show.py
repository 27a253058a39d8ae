"""`tinymaml show`: a picture of a task."""

import struct

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")

from tinymaml.cli import main
from tinymaml.train import show


def test_show_draws_a_task_of_the_glyphs(tmp_path, capsys):
    assert main(["show", "glyphs-5way-1shot", "--out", str(tmp_path), "--task", "3", "--split", "test"]) == 0
    path = tmp_path / "test-task-3.png"
    assert capsys.readouterr().out.strip() == str(path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) > 3000
    first = data
    assert main(["show", "glyphs-5way-1shot", "--out", str(tmp_path), "--task", "3", "--split", "test"]) == 0
    assert path.read_bytes() == first  # the same task


def test_colour_and_many_images(tmp_path):
    rng = np.random.default_rng(0)
    support = {"x": rng.random((2, 3, 8, 8, 3)).astype(np.float32), "y": np.tile(np.arange(3), (2, 1))}
    query = {"x": rng.random((2, 45, 8, 8, 3)).astype(np.float32), "y": np.tile(np.repeat(np.arange(3), 15), (2, 1))}
    path = show.draw(tmp_path / "deep" / "task.png", support, query, "a title")
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    assert width > 2 * height > 200


def test_a_data_set_that_was_not_prepared_is_named(tmp_path, capsys):
    assert main(["show", "omniglot-5way-1shot", "--data", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "omniglot.h5 is not there: tinymaml data omniglot" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
