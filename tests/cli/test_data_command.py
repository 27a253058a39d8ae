"""`tinymaml data`, as the command line calls it: where files go, what is printed, errors."""

from __future__ import annotations

import argparse
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h5py", reason="data sets need h5py: pip install 'tinymaml[data]'")
pytest.importorskip("PIL.Image", reason="images need Pillow: pip install 'tinymaml[data]'")

from tests.cases.image_cases import encoded, lay_out, noise, pack, real
from tinymaml.cli import data
from tinymaml.tasks import cifar_fs, miniimagenet, omniglot
from tinymaml.tasks.archive import DataError
from tinymaml.tasks.extras import MissingExtra
from tinymaml.tasks.imageset import describe, read

OWN = {
    f"{s}/{s}{c}/{i}.png": encoded(noise(c, 6, 6)) for s in ("train", "val", "test") for c in range(2) for i in range(3)
}


def tinymaml(*command: str | Path) -> None:
    parser = argparse.ArgumentParser()
    data.add_parser(parser.add_subparsers(required=True))
    data.run(parser.parse_args(["data", *map(str, command)]))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where prepared files go."""
    monkeypatch.setenv("TINYMAML_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_folder_of_ones_own(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay_out(tmp_path / "in", OWN)
    tinymaml("folder", "--from", tmp_path / "in", "--name", "mine", "--size", "4", "5", "--grey")
    printed, progress = capsys.readouterr()
    assert read(folder / "mine.h5", "test").images.shape == (6, 4, 5, 1)
    assert f"{folder / 'mine.h5'}: mine, 4 x 5 x 1, content {describe(folder / 'mine.h5')['content']}" in printed
    assert [line.split()[:2] for line in printed.splitlines()[1:4]] == [
        ["train", "2"],
        ["validation", "2"],
        ["test", "2"],
    ]
    assert printed.splitlines()[4:] == [
        "",
        "Train on it:",
        "  tinymaml train images --dataset mine --ways 2 --shots 1 --eval-query 2",
    ]
    assert "mine: 18 of 18" in progress
    tinymaml("folder", "--from", tmp_path / "in", "--name", "mine", "--out", tmp_path / "other.h5")
    assert read(tmp_path / "other.h5", "train").images.shape == (6, 84, 84, 3)


def test_classes_alone_are_divided(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {f"{c}/{i}.png": encoded(noise(c, 6, 6)) for c in range(25) for i in range(16)}
    command = ["folder", "--from", lay_out(tmp_path / "in", files), "--name", "mine", "--size", "4", "4"]
    tinymaml(*command, "--split", ".6", ".2", ".2")
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed[1:4]] == [["train", "15"], ["validation", "5"], ["test", "5"]]
    assert printed[4:] == ["", "Train on it:", "  tinymaml train images --dataset mine --ways 5 --shots 1"]
    first = describe(folder / "mine.h5")
    assert first["recipe"]["split"] == {"shares": [0.6, 0.2, 0.2], "seed": 0}
    out = tmp_path / "my data" / "mine.h5"
    tinymaml(*command, "--split", ".6", ".2", ".2", "--split-seed", "1", "--out", out)
    assert f" --data '{out.parent}'" in capsys.readouterr().out.splitlines()[-1]
    assert describe(out)["classes"] != first["classes"]
    with pytest.raises(ValueError, match=r"in has no train, val and test: give their shares .* --split \.6 \.2 \.2"):
        tinymaml(*command)


def test_what_cannot_be_trained_on_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for count, out, told in (
        (3, "mine.h5", "To train on it every split needs at least 2 classes, and every class 2 images."),
        (6, "mine.hdf5", "To train on it call the file mine.h5."),
    ):
        files = {f"{c}/{i}.png": encoded(noise(c, 6, 6)) for c in range(count) for i in range(2)}
        source = lay_out(tmp_path / str(count), files)
        shares = ["--split", ".34", ".33", ".33"]
        tinymaml("folder", "--from", source, "--name", "mine", "--size", "4", "4", *shares, "--out", tmp_path / out)
        assert capsys.readouterr().out.splitlines()[-1] == told


def test_progress_is_a_bar_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    pytest.importorskip("tqdm", reason="bars need tqdm: pip install 'tinymaml[train]'")
    lay_out(tmp_path / "in", OWN)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    tinymaml("folder", "--from", tmp_path / "in", "--name", "mine")
    assert "100%" in capsys.readouterr().err
    twice = data._Progress("twice")
    for done, total in ((5, 10), (10, 10), (1, 4), (4, 4)):
        twice(done, total)
    assert capsys.readouterr().err.count("100%") == 2
    monkeypatch.setitem(sys.modules, "tqdm", None)
    tinymaml("folder", "--from", tmp_path / "in", "--name", "mine")
    assert "mine: 18 of 18" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "name", "settings"),
    [
        ([], "omniglot.h5", {"split": "fixed", "resample": "nearest"}),
        (["--split", "vinyals"], "omniglot-vinyals.h5", {"split": "vinyals", "resample": "nearest"}),
        (["--resample", "lanczos"], "omniglot-lanczos.h5", {"split": "fixed", "resample": "lanczos"}),
        (
            ["--split", "vinyals", "--resample", "lanczos"],
            "omniglot-vinyals-lanczos.h5",
            {"split": "vinyals", "resample": "lanczos"},
        ),
    ],
)
def test_every_omniglot_has_a_file_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], name: str, settings: dict[str, str]
) -> None:
    asked: list[Any] = []

    def prepare(source: Path, target: Path, *, report: Any, **given: str) -> None:
        asked.append((source, target, given))

    monkeypatch.setattr(omniglot, "prepare", prepare)
    monkeypatch.setattr(data, "_summary", lambda path: [])
    tinymaml("omniglot", "--from", "here", *options)
    assert asked == [(Path("here"), folder / name, settings)]


def test_downloading_comes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(omniglot, "fetch", lambda path, report: done.append(("fetch", path)))
    monkeypatch.setattr(omniglot, "prepare", lambda source, target, **settings: done.append(("prepare", source)))
    monkeypatch.setattr(data, "_summary", lambda path: [])
    tinymaml("omniglot", "--download")
    assert done == [("fetch", folder / "omniglot"), ("prepare", folder / "omniglot")]


def test_miniimagenets_settings_are_handed_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(miniimagenet, "prepare", lambda *args, report, **settings: done.append((args, settings)))
    monkeypatch.setattr(data, "_summary", lambda path: [])
    tinymaml("miniimagenet", "--from", "here", "--splits", "lists", "--resample", "bilinear")
    expected = {"lists": Path("lists"), "resample": "bilinear"}
    assert done == [((Path("here"), folder / "miniimagenet.h5"), expected)]


def test_other_images_of_cifar_fs_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(data, "_summary", lambda path: [])
    for content, told in ((cifar_fs.CONTENT, False), ("0" * 64, True)):
        monkeypatch.setattr(cifar_fs, "prepare", lambda *args, report, content=content: content)
        tinymaml("cifar_fs", "--from", "here")
        assert ("not the images" in capsys.readouterr().out) is told


@pytest.mark.parametrize(
    "command",
    [
        ["omniglot"],
        ["omniglot", "--from", "x", "--download"],
        ["cifar_fs", "--download"],
        ["folder", "--from", "x"],
        ["nothing", "--from", "x"],
        [],
    ],
    ids=lambda command: " ".join(command) or "none",
)
def test_wrong_commands_are_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        tinymaml(*command)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_errors_name_the_file_and_leave_nothing(tmp_path: Path, folder: Path) -> None:
    lay_out(tmp_path / "in", OWN | {"train/train0/0.png": b"text"})
    with pytest.raises(DataError, match=r"train0.0\.png is not a whole"):
        tinymaml("folder", "--from", tmp_path / "in", "--name", "mine")
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        tinymaml("folder", "--from", tmp_path / "nowhere", "--name", "mine")
    assert not list(folder.glob("*"))


WRONG_ARGUMENTS: dict[str, tuple[list[str], str]] = {
    "huge": (["--size", "100000", "100000"], "size: images of 100000 x 100000 would have 30,000,000,000 bytes each"),
    "long": (["--size", "9999999999999999999", "1", "--grey"], "size: images of 9999999999999999999 x 1 would have"),
    "nothing": (["--size", "0", "4"], "size positive"),
    "negative": (["--size", "-4", "-4"], "size positive"),
    "elsewhere": (["--name", "../x"], "name must be of letters"),
    "long name": (["--name", "x" * 101], "name must be of letters, .* at most 100"),
    "two lines": (["--name", "a\nb"], "name must be of letters"),
}


@pytest.mark.parametrize("what", WRONG_ARGUMENTS)
def test_arguments_out_of_bounds_are_refused_before_anything_is_read(
    tmp_path: Path, folder: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, match = WRONG_ARGUMENTS[what]
    monkeypatch.setattr("tinymaml.tasks.folder.open_files", lambda *args: pytest.fail("the folder is read"))
    with pytest.raises(ValueError, match=match) as refused:
        tinymaml("folder", "--from", tmp_path, "--name", "mine", *options)
    assert "\n" not in str(refused.value)
    assert not folder.exists()


def test_a_class_that_is_too_large_at_that_size_is_named(tmp_path: Path, folder: Path, monkeypatch: Any) -> None:
    lay_out(tmp_path / "in", OWN)
    monkeypatch.setattr("tinymaml.tasks.folder._CLASS", 3 * 6 * 6 * 3 - 1)
    monkeypatch.setattr("tinymaml.tasks.folder.decode", lambda *args, **given: pytest.fail("an image is read"))
    with pytest.raises(ValueError, match="size: the 3 images of test0 would have 324 bytes at 6 x 6, more than"):
        tinymaml("folder", "--from", tmp_path / "in", "--name", "mine", "--size", "6", "6")
    assert not folder.exists()


def test_where_no_file_can_be_is_told_before_an_image_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path / "in", OWN)
    pack(tmp_path / "in.zip", OWN)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr("tinymaml.tasks.folder.decode", lambda *args, **given: pytest.fail("an image is read"))
    for source, out, error, match in (
        ("in", "in", ValueError, "--out .*in is what --from names: it would be written over"),
        ("in.zip", "in.zip", ValueError, r"--out .*in\.zip is what --from names"),
        ("in.zip", "in", DataError, "in is a folder, not a file"),
        ("in", "file/new.h5", OSError, "file"),
    ):
        with pytest.raises(error, match=match):
            tinymaml("folder", "--from", tmp_path / source, "--name", "mine", "--out", tmp_path / out)


def test_bombs_are_named(tmp_path: Path, folder: Path) -> None:
    """Images whose head announces more pixels than are allowed; nothing of them is decoded."""
    picture = encoded(noise(0, 6, 6))
    for width, height in ((100_000, 100_000), (2**31 - 1, 2**31 - 1), (9_000, 9_000), (0, 5)):
        head = picture[12:16] + struct.pack(">II", width, height) + picture[24:29]
        bomb = picture[:12] + head + struct.pack(">I", zlib.crc32(head)) + picture[33:]
        lay_out(tmp_path / "in", OWN | {"train/train0/0.png": bomb})
        with pytest.raises(DataError, match=r"train0.0\.png (has 9000 x 9000 pixels|is not a whole)") as refused:
            tinymaml("folder", "--from", tmp_path / "in", "--name", "mine")
        assert "\n" not in str(refused.value)
    assert not list(folder.glob("*"))


@pytest.mark.parametrize(("module", "name"), [("PIL.Image", "PIL"), ("h5py", "h5py")])
def test_missing_extras_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> None:
    lay_out(tmp_path / "in", OWN)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{name} is not installed: pip install 'tinymaml\[data\]'"):
        tinymaml("folder", "--from", tmp_path / "in", "--name", "mine")


def test_the_real_omniglot(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = real("omniglot/images_background.zip", "omniglot/images_evaluation.zip") / "omniglot"
    tinymaml("omniglot", "--from", source, "--out", folder / "omniglot.h5")
    printed = capsys.readouterr().out
    for line in (
        "train       1100 classes   22000",
        "validation   100 classes    2000",
        "test         423 classes    8460",
    ):
        assert line in printed
