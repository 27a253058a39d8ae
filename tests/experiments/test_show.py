"""`tinymaml show`: a picture of a task."""

import re
import struct

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")

from tinymaml.cli import main
from tinymaml.experiments.few_shot import show


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


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"tinymaml images\n" + bytes(5000), None], ids=range(4))
def test_a_data_set_that_is_damaged_is_named(tmp_path, capsys, content):
    pytest.importorskip("h5py", reason="data sets need h5py: pip install 'tinymaml[data]'")
    path = tmp_path / "omniglot.h5"
    path.mkdir() if content is None else path.write_bytes(content)
    assert main(["show", "omniglot-5way-1shot", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"tinymaml: [^\n]*omniglot\.h5 is [^\n]*\n", said)
    assert not (tmp_path / "out").exists()


def test_a_data_set_of_another_kind_is_named(tmp_path, capsys):
    """Whole, but with too few classes for the experiment's tasks, or without the split."""
    pytest.importorskip("h5py", reason="data sets need h5py: pip install 'tinymaml[data]'")
    from tinymaml.tasks import imageset

    parts = {"train": imageset.Part(["a", "b"], [2, 2], [np.zeros((2, 28, 28, 1), np.uint8)] * 2)}
    imageset.write(tmp_path / "omniglot.h5", "omniglot", parts, (28, 28, 1), {})
    for split, said in (("train", "ways"), ("test", "has no split 'test'")):
        assert main(["show", "omniglot-5way-1shot", "--data", str(tmp_path), "--split", split]) == 1
        assert said in capsys.readouterr().err
