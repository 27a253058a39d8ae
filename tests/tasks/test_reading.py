"""Only regular files are opened, JSON has a bounded depth, errors one line, and HDF5 no more than its file."""

from __future__ import annotations

import io
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cases.image_cases import lay_out
from tinymaml.tasks import archive, hdf5, npz
from tinymaml.tasks.archive import Limits
from tinymaml.tasks.reading import DEEPEST, DataError, NotAFile, one_line, open_file, parse_json, read_file
from tinymaml.train import metrics, results

LIMITS = Limits(files=10, each=1000, total=2000)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's whole name has to be short
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


SPECIAL: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a pipe": (os.mkfifo, "is a pipe, not a file"),
    "a folder": (Path.mkdir, "is a folder, not a file"),
    "a socket": (_socket, "is a socket, not a file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is a device, not a file"),
}
special = pytest.mark.parametrize("what", SPECIAL)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


def checkpoint_of(path: Path) -> Any:
    pytest.importorskip("h5py", reason="checkpoints need h5py: pip install 'tinymaml[train]'")
    from tinymaml.train import checkpoint

    return checkpoint.load(path)


def prepared(path: Path) -> Any:
    pytest.importorskip("h5py", reason="data sets need h5py: pip install 'tinymaml[data]'")
    from tinymaml.tasks import imageset

    return imageset.read(path, "train")


def splits_csv(path: Path) -> Any:
    from tinymaml.tasks import miniimagenet

    return miniimagenet.listed_images(path.parent, {"train": ["n1"]})


READERS: dict[str, tuple[str, Callable[[Path], Any], type[Exception]]] = {
    "open": ("file", open_file, NotAFile),
    "hash": ("file", archive.sha256, DataError),
    "zip": ("some.zip", lambda path: archive.open_files(path, LIMITS), DataError),
    "npz": ("some.npz", lambda path: npz.arrays(path, ["images"], LIMITS), DataError),
    "csv": ("train.csv", splits_csv, DataError),
    "prepared": ("some.h5", prepared, DataError),
    "checkpoint": ("000000001.h5", checkpoint_of, OSError),
    "results": ("results.json", lambda path: results.load(path, "sinusoid"), results.ResultsError),
    "metrics": ("metrics.jsonl", metrics.read, OSError),
}


@special
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path, what: str, reader: str) -> None:
    name, read, error = READERS[reader]
    make, said = SPECIAL[what]
    make(tmp_path / name)
    if what == "a folder" and reader == "zip":
        return  # is read as a folder
    if what == "a device" and reader == "npz":
        said = "is a symbolic link"
    with pytest.raises(error, match=said) as refused:
        read(tmp_path / name)
    assert name in str(refused.value)


@pytest.mark.parametrize("reader", READERS)
def test_a_link_to_nothing_is_named(tmp_path: Path, reader: str) -> None:
    name, read, _ = READERS[reader]
    (tmp_path / name).symlink_to("nowhere")
    if reader == "metrics":
        assert read(tmp_path / name) == []
        return
    with pytest.raises((OSError, DataError, results.ResultsError), match=name):
        read(tmp_path / name)


def test_a_file_that_becomes_a_pipe_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.png": b"x"})
    with archive.open_files(tmp_path, LIMITS) as found:
        (tmp_path / "a.png").unlink()
        os.mkfifo(tmp_path / "a.png")
        with pytest.raises(NotAFile, match=r"a\.png is a pipe"):
            found.read("a.png")


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a": b"12345"})
    assert read_file(tmp_path / "a", 5) == b"12345"
    with pytest.raises(DataError, match="a has more than the 4 bytes allowed"):
        read_file(tmp_path / "a", 4)


def test_messages_are_one_line() -> None:
    assert one_line("a ü\n\x1b[2J\u2028\ud800") == "a ü\\n\\x1b[2J\\u2028\\ud800"
    assert str(DataError("a\nb")) == "a\\nb"
    assert str(NotAFile("a\nb")) == "a\\nb"
    assert len(one_line("a" * 10**6)) < 2100
    assert str(results.ResultsError("a\nb")) == "a\\nb"


NO_JSON = ["[" * 1000 + "]" * 1000, '{"a":' * 10**5, "[" * 300 + "]" * 300, "{", "", "\xff", "9" * 5000]


@pytest.mark.parametrize("text", NO_JSON, ids=range(len(NO_JSON)))
def test_json_that_cannot_be_read_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text.encode("latin1"))


def test_json_of_some_depth_is_read() -> None:
    assert parse_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    parse_json("[" * DEEPEST + "]" * DEEPEST)
    with pytest.raises(ValueError, match=f"more than {DEEPEST} deep"):
        parse_json("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))


def test_names_of_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    with pytest.raises(DataError, match=r"udcff\.png has a name that is not UTF-8"):
        archive.open_files(tmp_path, LIMITS)


def heap(*objects: tuple[int, int], size: int | None = None) -> bytes:
    """A heap of HDF5's: (index, length) of its objects."""
    inside = b""
    for i, length in objects:
        inside += struct.pack("<HHIQ", i, 1, 0, length) + bytes(-(-length // 8) * 8 if i else max(length - 16, 0))
    return b"GCOL" + struct.pack("<BxxxQ", 1, 16 + len(inside) if size is None else size) + inside


@pytest.mark.parametrize(
    ("content", "good"),
    [
        (heap((1, 5), (2, 0), (0, 40)), True),
        (heap((1, 5)), True),
        (heap((1, 5), (0, 0)), False),  # HDF5 2.0 would go round for ever
        (heap((0, 8)), False),
        (heap((1, 5), size=10**6), False),
        (heap((1, 5), size=2**64 - 1), False),
        (b"GCOL", True),  # no list at all: HDF5 refuses it itself
        (b"other" + bytes(100), True),
    ],
)
def test_heaps_are_walked_before_hdf5_does(content: bytes, good: bool) -> None:
    file = hdf5.Guarded(io.BytesIO(bytes(8) + content))
    file.seek(8)
    if not good:
        with pytest.raises(ValueError, match="a heap of texts"):
            file.read(len(content))
        return
    assert file.read(5) == content[:5]
    assert file.tell() == 8 + len(content[:5])


def test_an_object_of_a_heap_that_is_longer_than_the_heap_is_refused() -> None:
    content = bytearray(heap((1, 5), (2, 5)))
    struct.pack_into("<Q", content, 16 + 8, 2**63)
    with pytest.raises(ValueError, match="a heap of texts is damaged"):
        hdf5.Guarded(io.BytesIO(content)).read(16)


def test_only_so_much_is_read_as_there_is(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="needs h5py: pip install 'tinymaml[train]'")
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file["a"], file["b"] = np.zeros(50), np.zeros(50)
        reader = hdf5.Reader(size := 8 * 50 + (tmp_path / "some.h5").stat().st_size)
        assert reader.array(file, "a", "f").shape == (50,)
        with pytest.raises(ValueError, match=f"have more than the {size:,} bytes of the file"):
            for _ in range(10):
                reader.array(file, "b", "f")
