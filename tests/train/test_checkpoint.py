"""Checkpoints are whole or refused: round trips, damage of every kind, foreign files, writers that die."""

from __future__ import annotations

import enum
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.conftest import ROOT

h5py = pytest.importorskip("h5py", reason="checkpoints need h5py: pip install 'tinymaml[train]'")

import tinymaml  # noqa: E402
from tinymaml.tasks.atomic_files import ENDING  # noqa: E402
from tinymaml.train import checkpoint  # noqa: E402
from tinymaml.train.checkpoint import (  # noqa: E402
    BLOCK,
    CheckpointError,
    latest,
    load,
    save,
    write_numbered,
)

SETTINGS = {"alpha": 0.1, "hidden": [40, 40], "start": "he-normal"}
STATE: dict[str, Any] = {
    "params": [{"w": np.arange(6, dtype=np.float32).reshape(1, 2, 3), "b": np.zeros((1, 1, 3))}, ()],
    "optimiser": {"iteration": np.zeros((), np.int64), "m": (np.array([np.pi, -0.0, np.inf, np.nan]), None)},
    "stream": {"seed": 2**63, "next_task": 12, "mask": np.array([True, False]), "empty": np.zeros((0, 3), np.float32)},
    "words": np.array([2**64 - 1], np.uint64),
    "scalars": (np.float32(0.1), np.uint64(2**64 - 1), np.bool_(True)),
    "plain": [1, True, None, "ü", 0.1, -0.0, float("inf"), {}],
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray | np.generic):
        return type(one) is type(other) and (one.dtype, one.shape, one.tobytes()) == (
            other.dtype,
            other.shape,
            other.tobytes(),
        )
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return repr(one) == repr(other)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(tmp_path / "one.h5", STATE, SETTINGS, 7)
    return tmp_path / "one.h5"


def test_everything_comes_back_as_it_was(path: Path) -> None:
    found = load(path)
    assert found.iteration == 7
    assert found.settings == SETTINGS
    assert same(found.state, STATE)


def test_the_same_state_gives_the_same_bytes(path: Path) -> None:
    save(path.with_name("two.h5"), STATE, SETTINGS, 7)
    assert path.read_bytes() == path.with_name("two.h5").read_bytes()


def test_it_is_ordinary_hdf5(path: Path) -> None:
    with h5py.File(path) as file:
        assert file.attrs["iteration"] == 7
        assert json.loads(file.attrs["settings"]) == SETTINGS
        assert file.attrs["format_version"] == checkpoint.FORMAT
        assert file.attrs["created_by"] == f"tinymaml {tinymaml.__version__}"
        assert len(file["arrays"]) == 10


class Pair(NamedTuple):
    one: int
    other: int


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    "value",
    [
        object(),
        np.array(["text"]),
        np.array([None]),
        np.zeros(1, np.complex64),
        np.str_("text"),
        np.ma.array([1.0, 2.0], mask=[0, 1]),
        1j,
        {1: 2},
        OrderedDict(a=1),
        Pair(1, 2),
        Number.ONE,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_held_is_refused_and_nothing_written(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError, match="a checkpoint"):
        save(tmp_path / "one.h5", {"value": value}, {}, 0)
    assert not list(tmp_path.iterdir())


def test_truncated_files_are_refused(path: Path) -> None:
    data = path.read_bytes()
    for length in {0, 1, 19, 20, 100, BLOCK - 1, BLOCK, BLOCK + 1, *range(0, len(data), 97), len(data) - 1}:
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"one\.h5"):
            load(path)


def test_changed_bytes_are_refused(path: Path) -> None:
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    places = [*range(BLOCK), *rng.integers(BLOCK, len(data), 500).tolist()]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"one\.h5"):
            load(path)


def test_appended_and_swapped_content_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for changed in (data + b"\0", data[:BLOCK] + data[BLOCK:][::-1], data[:BLOCK] * 2):
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"one\.h5"):
            load(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.h5"
    with h5py.File(path, "w") as file:
        file["arrays/0000"] = np.zeros(3)
    foreign = [path.read_bytes(), b"\x89PNG\r\n\x1a\n" + bytes(600), b"a text", b"\x80\x04K\x01.", b"PK\x03\x04"]
    for data in foreign:
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"one\.h5 is not a tinymaml checkpoint"):
            load(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"one\.h5 is empty"):
        load(path)


def signed(content: bytes, version: int = checkpoint.FORMAT) -> bytes:
    """A file with checksums that fit, whatever is in it."""
    import hashlib

    header = struct.pack("<20sIQ32s", checkpoint.MAGIC, version, len(content), hashlib.sha256(content).digest())
    header = header.ljust(BLOCK - 32, b"\0")
    return header + hashlib.sha256(header).digest() + content


def test_a_newer_format_is_refused_with_what_to_do(path: Path) -> None:
    content = path.read_bytes()[BLOCK:]
    path.write_bytes(signed(content, version=checkpoint.FORMAT + 1))
    with pytest.raises(CheckpointError, match=r"made by a newer tinymaml \(format 2, this one reads 1\): upgrade"):
        load(path)
    path.write_bytes(signed(content, version=0))
    with pytest.raises(CheckpointError, match=r"one\.h5 has the format 0"):
        load(path)


def test_wrong_content_with_right_checksums_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["arrays/0003"]
    short = path.read_bytes()[BLOCK:]
    for content in (b"", b"not HDF5", short):
        path.write_bytes(signed(content))
        with pytest.raises(CheckpointError, match=r"one\.h5 is not a checkpoint of this program"):
            load(path)


WRONG: dict[str, Callable[[Any], Any]] = {
    "a group for an array": lambda file: file.create_group("arrays/0000"),
    "text for an array": lambda file: file.create_dataset("arrays/0000", data=["x"], dtype=h5py.string_dtype()),
    "no values": lambda file: file.create_dataset("arrays/0000", data=h5py.Empty("f4")),
    "more values than bytes": lambda file: file.create_dataset("arrays/0000", (10**15,), "f8", chunks=(1000,)),
    "values in another file": lambda file: file.create_dataset("arrays/0000", (1,), "f8", external=[("other", 0, 8)]),
    "an array counted from the end": lambda file: (
        file.create_dataset("arrays/0000", data=1.0),
        file.attrs.update(structure='{"array": -1}'),
    ),
    "a list for a dict": lambda file: file.attrs.update(structure='{"dict": [1]}'),
    "an unknown kind": lambda file: file.attrs.update(structure='{"set": [1]}'),
    "a float too large": lambda file: file.attrs.update(structure='{"float": "0x1p99999"}'),
    "no JSON": lambda file: file.attrs.update(structure="{"),
    "values packed": lambda file: file.create_dataset(
        "arrays/0000", data=np.zeros(10), chunks=True, compression="gzip"
    ),
    "a huge piece": lambda file: file.create_dataset("arrays/0000", (1,), "u1", chunks=(2**28,), maxshape=(None,)),
    "as many values as wrap round": lambda file: file.create_dataset("arrays/0000", (2**32, 2**32), "u1"),
    "values of another data set": lambda file: virtual(file),
    "a link that leads elsewhere": lambda file: file.__setitem__("arrays/0000", h5py.ExternalLink("/dev/zero", "/x")),
    "a link to itself": lambda file: file.__setitem__("arrays/0000", h5py.SoftLink("/arrays/0000")),
    "the file itself for an array": lambda file: file.__setitem__("arrays/0000", file["/"]),
    "a link for all arrays": lambda file: file.__setitem__("arrays", h5py.ExternalLink("/dev/zero", "/x")),
    "a data set for all arrays": lambda file: file.__setitem__("arrays", np.zeros(1)),
    "an array without a place": lambda file: (
        file.create_dataset("arrays/0000", data=1.0),
        file.attrs.update(structure="1"),
    ),
    "an array in two places": lambda file: (
        file.create_dataset("arrays/0000", data=1.0),
        file.attrs.update(structure='{"list": [{"array": 0}, {"array": 0}]}'),
    ),
    "a deep structure": lambda file: file.attrs.update(structure='{"list": [' * 400 + "1" + "]}" * 400),
    "a very deep structure": lambda file: file.attrs.update(structure='{"list": [' * 20_000 + "1" + "]}" * 20_000),
    "deep settings": lambda file: file.attrs.update(structure="1", settings='{"a": ' * 20_000 + "1" + "}" * 20_000),
    "a large structure": lambda file: file.attrs.update(structure="[" + "1, " * 2**23 + "1]"),
    "many texts for a structure": lambda file: file.attrs.create("structure", ["1"] * 3, dtype=h5py.string_dtype()),
    "numbers for a structure": lambda file: file.attrs.update(structure=np.zeros(3)),
    "no structure": lambda file: file.attrs.__delitem__("structure"),
    "an iteration before the first": lambda file: file.attrs.update(structure="1", iteration=-1),
    "many iterations": lambda file: file.attrs.update(structure="1", iteration=np.zeros(3, int)),
    "settings that are a list": lambda file: file.attrs.update(structure="1", settings="[1]"),
    "an infinite iteration": lambda file: file.attrs.update(structure="1", iteration=np.inf),
}


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((1,), "f8")
    layout[0] = h5py.VirtualSource("/dev/zero", "x", (1,))[0]
    file.create_virtual_dataset("arrays/0000", layout)


@pytest.mark.parametrize("what", WRONG)
def test_hdf5_of_another_make_with_right_checksums_is_refused(tmp_path: Path, what: str) -> None:
    buffer, path = io.BytesIO(), tmp_path / "one.h5"
    with h5py.File(buffer, "w", userblock_size=BLOCK) as file:
        file.attrs.update(structure='{"array": 0}', settings="{}", iteration=1)
        WRONG[what](file)
    path.write_bytes(signed(buffer.getvalue()[BLOCK:]))
    with pytest.raises(CheckpointError, match=r"one\.h5 is not a checkpoint of this program") as refused:
        load(path)
    assert "\n" not in str(refused.value)


def test_thousands_of_names_of_one_array_are_refused(tmp_path: Path) -> None:
    """9 000 times 400 000 bytes, of a file of a million: before 4 GB are read."""
    buffer, path = io.BytesIO(), tmp_path / "one.h5"
    with h5py.File(buffer, "w", userblock_size=BLOCK) as file:
        file.attrs.update(
            structure=json.dumps({"list": [{"array": i} for i in range(9000)]}), settings="{}", iteration=1
        )
        file["arrays/0000"] = np.zeros(100_000, np.float32)
        for i in range(1, 9000):
            file[f"arrays/{i:04}"] = file["arrays/0000"]
    path.write_bytes(signed(buffer.getvalue()[BLOCK:]))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"its data sets have more than the [\d,]+ bytes of the file"):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * path.stat().st_size
    finally:
        tracemalloc.stop()


def test_what_would_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(150):
        deep = [deep]
    cycle: list[Any] = []
    cycle.append(cycle)
    for state, settings, match in (
        (deep, {}, "nested more than"),
        (cycle, {}, "contains itself"),
        (1, {"a": deep * 2, "b": [deep]}, None),
        (list(range(3_000_000)), {}, "the state of a checkpoint may have 16,777,216 bytes as JSON"),
        (1, {"text": "x" * 2**24}, "the settings of a checkpoint may have"),
    ):
        if match is None:
            save(tmp_path / "one.h5", state, settings, 0)
            assert load(tmp_path / "one.h5").settings == settings
            (tmp_path / "one.h5").unlink()
            continue
        with pytest.raises(ValueError, match=match):
            save(tmp_path / "one.h5", state, settings, 0)
        assert not list(tmp_path.iterdir())


def test_bad_newer_files_do_not_push_out_good_ones(tmp_path: Path) -> None:
    for iteration in (1, 2, 3, 4, 5):
        write_numbered(tmp_path, {"i": iteration}, {}, iteration, keep=5)
    for iteration in (3, 4, 5):
        (tmp_path / f"{iteration:09}.h5").write_bytes(b"bad")
    found = latest(tmp_path, lambda message: None)
    assert found is not None
    assert found.iteration == 2
    written = write_numbered(tmp_path, {"i": 3}, {}, 3, keep=2)
    assert load(written).iteration == 3
    assert sorted(int(p.stem) for p in tmp_path.iterdir()) == [2, 3, 4, 5]
    write_numbered(tmp_path, {"i": 6}, {}, 6, keep=2)
    assert sorted(int(p.stem) for p in tmp_path.iterdir()) == [5, 6]


def test_at_least_one_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep"):
        write_numbered(tmp_path, {}, {}, 1, keep=0)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    write_numbered(tmp_path, {"i": 1}, {}, 1)
    (tmp_path / "000000002.h5").mkdir()
    said: list[str] = []
    found = latest(tmp_path, said.append)
    assert found is not None
    assert found.iteration == 1
    assert "000000002.h5 cannot be read" in said[0]


def test_only_the_last_are_kept(tmp_path: Path) -> None:
    (tmp_path / f"000000001.h5.123{ENDING}").write_bytes(b"what a killed run left")
    for iteration in (5, 10, 100, 1000):
        write_numbered(tmp_path, {"i": iteration}, {}, iteration, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000100.h5", "000001000.h5"]


def test_the_newest_good_one_is_taken_and_the_bad_reported(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    for iteration in (1, 2, 3):
        write_numbered(tmp_path, {"i": iteration}, {}, iteration)
    newest = tmp_path / "000000003.h5"
    newest.write_bytes(newest.read_bytes()[:-10])
    said: list[str] = []
    found = latest(tmp_path, said.append)
    assert found is not None
    assert found.iteration == 2
    assert len(said) == 1
    assert "000000003.h5 is torn" in said[0]
    assert "going on from 000000002.h5" in said[0]
    for path in tmp_path.glob("*.h5"):
        path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is good"):
        latest(tmp_path)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="No space left"):
        save(path, {"other": 1}, {}, 8)
    assert [p.name for p in path.parent.iterdir()] == ["one.h5"]
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_writer_killed_in_the_middle_leaves_the_old_file(tmp_path: Path, moment: str) -> None:
    write_numbered(tmp_path, STATE, SETTINGS, 1)
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom tinymaml.train import checkpoint\n"
        f"os.{moment} = lambda *args: os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint.write_numbered(Path(sys.argv[1]), {'i': 2}, {}, 2)"
    )
    root = ROOT
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root)
    assert done.returncode == -signal.SIGKILL
    found = latest(tmp_path)
    assert found is not None
    assert found.iteration == 1
    assert same(found.state, STATE)
    write_numbered(tmp_path, {"i": 3}, {}, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000001.h5", "000000003.h5"]
