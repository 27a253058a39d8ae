"""Damaged and forged files of every kind that is read: each is read as it was, or refused in one line by its reader.

`python -m tests.fuzz.files --seed 0 --count 100000 --seconds 600` runs many cases; `--case 17` one, in this process.
Cases run in a process of their own, with a limit of its memory and an alarm for each case: if HDF5's or Pillow's C code
crashes, never ends or takes gigabytes, that is found, and the next process goes on behind it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.cases.image_cases import encoded, lay_out, noise, pack
from tests.cases.results_cases import entry, image_entry, rl_entry
from tests.conftest import ROOT
from tests.fuzz.mutations import WORDS, Rng, mutated, mutated_json, pick, twist
from tinymaml.experiments.control import table as rl_table
from tinymaml.experiments.few_shot import table as image_table
from tinymaml.experiments.sinusoid import plots as sinusoid_plots
from tinymaml.experiments.sinusoid import table as sinusoid_table
from tinymaml.tasks import archive, folder, imageset, miniimagenet, npz, seal
from tinymaml.tasks.archive import DataError, Limits
from tinymaml.train import checkpoint, metrics, plots, results

SECONDS = 10  # that a case may take
MEMORY = 1 << 28  # bytes that a case may use, beyond what a process does before the first
ADDRESSES = 1 << 32  # bytes that it may ask for: HDF5 does so before it sees that a file is not as large
LIMITS = Limits(files=40, each=1 << 18, total=1 << 19)


class Case:
    """Where a case writes, and by what it chooses."""

    def __init__(self, bases: Bases, rng: Rng) -> None:
        self.bases, self.folder, self.rng = bases, bases.folder / "case", rng
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()

    def put(self, name: str, data: bytes) -> Path:
        """A new file."""
        path = self.folder / name
        path.write_bytes(data)
        return path


class Bases:
    """Whole files of every kind, made once."""

    def __init__(self, folder: Path) -> None:
        import h5py

        self.folder = folder
        os.mkfifo(folder / "pipe")
        self.state = {
            "params": [{"w": np.arange(6.0).reshape(1, 2, 3), "b": np.zeros((1, 1, 3), np.float32)}, ()],
            "optimiser": {"m": (np.array([np.pi, -0.0]), None), "i": np.zeros((), np.int64), "mask": np.array([True])},
            "plain": [1, True, None, "ü", 0.1, np.float32(2)],
        }
        self.settings = {"alpha": 0.1, "hidden": [40, 40], "method": "maml"}
        path = folder / "base.h5"
        checkpoint.save(path, self.state, self.settings, 7)
        self.checkpoint = path.read_bytes()
        with h5py.File(io.BytesIO(self.checkpoint)) as file:
            self.arrays = tuple(f"arrays/{name}" for name in file["arrays"])
        shape, rng = (4, 5, 3), np.random.default_rng(0)
        self.images = {
            split: [rng.integers(0, 256, (count, *shape), dtype=np.uint8) for count in counts]
            for split, counts in {"train": [3, 1, 2], "validation": [2], "test": [5, 2]}.items()
        }
        parts = {
            split: imageset.Part([f"{split}/ü{c}" for c in range(len(own))], [len(batch) for batch in own], own)
            for split, own in self.images.items()
        }
        imageset.write(path, "some", parts, shape, {"source": "drawn"})
        self.prepared = path.read_bytes()
        facts = json.loads(self.prepared[16 : seal.BLOCK - 32].rstrip(b"\0"))
        self.places: list[list[int]] = facts["images"]
        stretches = {i for offset, length in self.places for i in range(offset, offset + length)}
        self.metadata = [i for i in range(seal.BLOCK, len(self.prepared)) if i not in stretches]
        self.arrays_of_npz = {"images": noise(0, 4, 5)[None], "labels": np.array(["n1", "ü"])}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self.arrays_of_npz)
        self.npz = buffer.getvalue()
        self.pictures = {
            "a.png": encoded(noise(1, 6, 7)),
            "b.jpg": encoded(noise(2, 6, 7), "JPEG"),
            "c.png": encoded(noise(3, 6, 7), mode="P"),
            "d.png": encoded(noise(4, 6, 7, 1), mode="1"),
        }
        self.tree = {
            f"{s}/{s}{c}/{i}.png": b"%d" % i for s in ("train", "val", "test") for c in range(2) for i in range(2)
        }
        self.zip = pack(folder / "base.zip", self.tree).read_bytes()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
            packed.addfile(tarfile.TarInfo("train/a/0.png"))
        self.tar = buffer.getvalue()
        fit, other = entry(0.6, 2, True), entry(2.4)
        for own in (fit, other):
            own["qualitative"] = own["qualitative"][::9]
        self.results: dict[str, tuple[dict[str, Any], Callable[[Any], str]]] = {
            name: ({"format": 1, "experiment": name, "methods": json.loads(json.dumps(methods))}, table)
            for name, methods, table in (
                ("sinusoid", {"maml": fit, "pretrained": other}, sinusoid_table.table),
                ("omniglot-5way-1shot", {"maml": image_entry(0.9), "fomaml": image_entry(0.8)}, image_table.table),
                ("navigation", {"maml": rl_entry(-10.0), "oracle": rl_entry(-5.0)}, rl_table.table),
            )
        }
        lines = [{"iteration": 10 * i, "loss": 1 / i, "accuracy": None, "seconds": i} for i in range(1, 9)]
        self.metrics = "".join(json.dumps(line) + "\n" for line in lines).encode()
        self.lists = {
            f"{name}.csv": ("filename,label\n" + "".join(f"{name}{i}.jpg,{name}\n" for i in range(600))).encode()
            for name in ("train", "val", "test")
        }


def _read(reader: Callable[[], Any], errors: tuple[type[Exception], ...]) -> Any:
    """What the reader gives, None if it refuses as it says it does."""
    try:
        return reader()
    except errors as error:
        said, cause = str(error), error
        if not said or "\n" in said or not said.isprintable() or len(said) > 3000:
            raise AssertionError(f"not a line of text: {said[:3000]!r}") from error
        while cause is not None:
            if isinstance(cause, MemoryError):
                raise AssertionError(f"too much memory: {error}") from error
            cause = cause.__cause__
        return None


def _same(one: Any, other: Any) -> bool:
    """Whether two states are, to the bit."""
    if isinstance(one, np.ndarray | np.generic):
        return type(one) is type(other) and (one.dtype, one.shape, one.tobytes()) == (
            other.dtype,
            other.shape,
            other.tobytes(),
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return repr(one) == repr(other)


# Checkpoints

ERRORS_OF_CHECKPOINTS = (checkpoint.CheckpointError, OSError)


def _signed(content: bytes, version: int = checkpoint.FORMAT) -> bytes:
    head = struct.pack("<20sIQ32s", checkpoint.MAGIC, version, len(content), hashlib.sha256(content).digest())
    head = head.ljust(checkpoint.BLOCK - 32, b"\0")
    return head + hashlib.sha256(head).digest() + content


def damaged_checkpoint(case: Case) -> None:
    data = mutated(case.bases.checkpoint, case.rng) if case.rng.random() < 0.9 else case.bases.checkpoint
    path = case.put("file.h5", data)
    results = _read(lambda: checkpoint.load(path), ERRORS_OF_CHECKPOINTS)
    assert (results is not None) == (data == case.bases.checkpoint)
    assert results is None or _same(results.state, case.bases.state)


def _load_forged(path: Path) -> None:
    """What is loaded has no more bytes than the file."""
    results = _read(lambda: checkpoint.load(path), ERRORS_OF_CHECKPOINTS)
    if results is not None:
        assert results.iteration >= 0
        assert isinstance(results.settings, dict)
        assert _bytes(results.state) <= path.stat().st_size


def _bytes(state: Any) -> int:
    if isinstance(state, np.ndarray):
        return state.nbytes
    inside = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(_bytes, inside))


def forged_checkpoint(case: Case) -> None:
    content = case.bases.checkpoint[checkpoint.BLOCK :]
    version = int(pick(case.rng, (1, 1, 1, 1, 1, 1, 1, 0, 2, 2**32 - 1)))
    _load_forged(case.put("file.h5", _signed(mutated(content, case.rng), version)))


def twisted_checkpoint(case: Case) -> None:
    import h5py

    buffer = io.BytesIO(case.bases.checkpoint)
    with h5py.File(buffer, "r+") as file:
        names = ("arrays", *case.bases.arrays)
        for _ in range(int(case.rng.integers(1, 3))):
            twist(
                file,
                names,
                tuple(name for name in ("structure", "settings") if _is_json(file, name)),
                case.bases.folder,
                case.rng,
            )
    _load_forged(case.put("file.h5", _signed(buffer.getvalue()[checkpoint.BLOCK :])))


def _is_json(file: Any, name: str) -> bool:
    try:
        json.loads(file.attrs[name])
    except (KeyError, TypeError, ValueError, RecursionError, OSError):
        return False
    return True


# Prepared data sets

ERRORS_OF_DATA = (DataError, OSError)


def _read_prepared(case: Case, path: Path) -> imageset.ImageSet | None:
    """One of the splits, lazily or not, or the header alone; what is read fits together."""
    split, lazy = pick(case.rng, (None, *case.bases.images)), bool(case.rng.integers(2))
    if split is None:
        _read(lambda: imageset.describe(path), ERRORS_OF_DATA)
        return None
    results = _read(lambda: imageset.read(path, split, lazy), ERRORS_OF_DATA)
    if results is not None:
        assert results.images.dtype == np.uint8
        assert results.first[0] == 0
        assert results.first[-1] == len(results.images)
        assert len(results.classes) == len(results.first) - 1
    return results


def damaged_prepared(case: Case) -> None:
    results = _read_prepared(case, case.put("some.h5", mutated(case.bases.prepared, case.rng)))
    if results is not None and results.images.base is None:  # all of it was checked
        assert np.array_equal(results.images, np.concatenate(case.bases.images[results.split]))


def forged_prepared(case: Case) -> None:
    kept = case.rng.random() < 0.8  # the places of what is changed, so that more of it is looked at
    data = mutated(case.bases.prepared, case.rng, case.bases.metadata if kept else None)  # type: ignore[arg-type]
    path = case.put("some.h5", data)
    if len(data) < seal.BLOCK:
        return
    seal.seal(path, [tuple(place) for place in case.bases.places] if kept else [])  # type: ignore[misc]
    _read_prepared(case, path)


def forged_seal(case: Case) -> None:
    """The JSON in the first block is another, with a checksum that fits."""
    facts = json.loads(case.bases.prepared[16 : seal.BLOCK - 32].rstrip(b"\0"))
    text = mutated_json(facts, case.rng).encode()[: seal.BLOCK - 100]
    if case.rng.random() < 0.2:
        text = mutated(text, case.rng)[: seal.BLOCK - 100]
    head = (b"tinymaml images\n" + text).ljust(seal.BLOCK - 32, b"\0")
    data = head + hashlib.sha256(head).digest() + case.bases.prepared[seal.BLOCK :]
    _read_prepared(case, case.put("some.h5", data))


def twisted_prepared(case: Case) -> None:
    import h5py

    buffer = io.BytesIO(case.bases.prepared)
    with h5py.File(buffer, "r+") as file:
        names = tuple(
            f"{s}{own}" for s in case.bases.images for own in ("", "/first", "/sha256", "/classes", "/images")
        )
        for _ in range(int(case.rng.integers(1, 3))):
            twist(file, names, ("header",) if _is_json(file, "header") else (), case.bases.folder, case.rng)
    path = case.put("some.h5", buffer.getvalue())
    seal.seal(path, [])
    _read_prepared(case, path)


# Archives


def damaged_npz(case: Case) -> None:
    path = case.put("some.npz", mutated(case.bases.npz, case.rng))
    results = _read(lambda: npz.arrays(path, ["images", "labels"], LIMITS), ERRORS_OF_DATA)
    for own, array in zip(results or (), case.bases.arrays_of_npz.values(), strict=False):
        assert np.array_equal(own, array)


_HEADS = (
    "{'descr': '%s', 'fortran_order': False, 'shape': (1, 4, 5, 3), }",
    "{'descr': '%s', 'fortran_order': True, 'shape': (60,), }",
    "{'descr': '%s', 'fortran_order': 1, 'shape': [60], }",
    "{'descr': '%s', 'shape': (60L,), 'fortran_order': False}",
    "{'descr': [('a', '%s'), ('', '|O')], 'fortran_order': False, 'shape': (3,), }",
    "{'descr': ('%s', (3,)), 'fortran_order': False, 'shape': (-1, -60), }",
)
_LETTERS = "{}()[]'\",: \n\t0123456789-+*.eLOUSVuf<>|=abxyTrueFalsN\\\0ü"


def forged_npz(case: Case) -> None:
    rng = case.rng
    text = list(
        pick(rng, (*_HEADS, *_HEADS[:2], *_HEADS[:2]))
        % pick(
            rng, ("|u1", "|u1", "|i1", "?", "<i8", ">U5", "<U5", "|S3", "|O", "|V9", "M8[s]", "?", "u1,f4", "<x7", "")
        )
    )
    for _ in range(int(pick(rng, (0, 0, 1, 2, 4)))):
        place = int(rng.integers(len(text)))
        what = int(rng.integers(4))
        if what == 0:
            text[place] = pick(rng, _LETTERS)
        elif what == 1:
            text.insert(place, pick(rng, (*_LETTERS, "(" * 300, "-" * 3000, "9" * 5000, "[" * 90 + "]" * 90)))
        elif what == 2:
            del text[place]
        else:
            text[place:] = text[place:] + text[place:][:20]
    head = "".join(text).encode("latin1") + b" " * int(rng.integers(3)) + b"\n"
    version = int(pick(rng, (1, 1, 1, 1, 1, 2, 3, 255)))
    length = len(head) if rng.random() < 0.9 else int(pick(rng, WORDS)) % 65536
    data = b"\x93NUMPY" + bytes([version, 0]) + length.to_bytes(2 if version == 1 else 4, "little") + head
    data += bytes(pick(rng, (0, 60, 60, 60, 61, 480)))
    path = pack(case.folder / "some.npz", {"images.npy": data, "labels.npy": data})
    _read(lambda: npz.arrays(path, ["images"], LIMITS), ERRORS_OF_DATA)


def damaged_zip(case: Case) -> None:
    data = case.bases.tar if case.rng.random() < 0.05 else case.bases.zip
    path = case.put(pick(case.rng, ("some.zip", "some.ZIP", "some.tar")), mutated(data, case.rng))

    def contents() -> dict[str, bytes]:
        with archive.files(path, LIMITS) as results:
            return {name: results.read(name) for name in results.names}

    results = _read(contents, ERRORS_OF_DATA)
    if results is not None:  # zeros for sizes and checksum are those of an empty file
        assert set(results.values()) <= {*case.bases.tree.values(), b""}


def forged_zip(case: Case) -> None:
    rng, path = case.rng, case.folder / "some.zip"
    with zipfile.ZipFile(path, "w", pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))) as packed:
        wrong = rng.random() * 0.2  # how many of the members
        for i in range(int(rng.integers(1, 50))):
            name, kind, size = pick(rng, ("train/a/%d.png", "train/%d/", "ü%d")), 0o100644, 1
            if rng.random() < wrong:
                name = pick(rng, ("../%d", "/%d", "a\\%d", "%d.pt", "\x1b%d\n", "a/./%d", "C:%d", "same"))
            if rng.random() < wrong:
                kind, size = int(pick(rng, (0, 0o120777, 0o010644))), int(pick(rng, (0, 100, 1 << 18, (1 << 18) + 1)))
            member = zipfile.ZipInfo(name % i if "%" in name else name)
            member.external_attr = kind << 16
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that is there already
                packed.writestr(member, b"" if name.endswith("/") else bytes(size))
    path.write_bytes(path.read_bytes() if rng.random() < 0.7 else mutated(path.read_bytes(), rng))

    def contents() -> int:
        with archive.files(path, LIMITS) as results:
            return sum(len(results.read(name)) for name in results.names)

    assert (_read(contents, ERRORS_OF_DATA) or 0) <= LIMITS.total


# Images, folders and lists


def damaged_picture(case: Case) -> None:
    rng = case.rng
    name = pick(rng, list(case.bases.pictures))
    data = case.bases.pictures[name]
    if rng.random() < 0.3 and name.endswith(".png"):  # another size, depth or colour, with a checksum that fits
        head = bytearray(data[12:29])
        place = int(rng.integers(4, 17))
        head[place : place + 4] = (pick(rng, WORDS) % 2**32).to_bytes(4, "big")[: 17 - place]
        data = data[:12] + bytes(head) + zlib.crc32(head).to_bytes(4, "big") + data[33:]
    else:
        data = mutated(data, rng)
    lay_out(case.folder / "pictures", {name: data})
    convert = folder.resizer((5, 4), pick(rng, ("RGB", "L")), pick(rng, folder.RESAMPLINGS))

    def picture() -> Any:
        with archive.files(case.folder / "pictures", LIMITS) as results:
            return convert(results, name)

    results = _read(picture, ERRORS_OF_DATA)
    assert results is None or (results.dtype == np.uint8 and results.shape[:2] == (5, 4))


def odd_folder(case: Case) -> None:
    rng, top = case.rng, case.folder / "tree"
    lay_out(top, case.bases.tree)
    for _ in range(int(rng.integers(1, 4))):
        place = (
            top
            / pick(rng, ("", "train", "val/val0", "new", "test/test0"))
            / pick(rng, ("0.png", "x.png", "\x1b\n.png", "a.pt", "val"))
        )
        with contextlib.suppress(OSError):  # what was made before is in the way
            place.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(place):
                place.rename(top / f"{len(list(top.iterdir()))}")
            _odd_entry(place, rng)
    if rng.random() < 0.1:
        (Path(os.fsdecode(bytes(top) + b"/train/train0/\xff.png"))).write_bytes(b"x")

    def contents() -> Any:
        with archive.files(top, LIMITS) as results:
            for name in results.names:
                results.read(name)
            return folder._by_split(results)

    _read(contents, ERRORS_OF_DATA)


def _odd_entry(path: Path, rng: Rng) -> None:
    what = int(rng.integers(7))
    if what == 0:
        os.mkfifo(path)
    elif what == 1:
        path.symlink_to(pick(rng, ("nowhere", ".", "/etc/passwd", "/dev/zero", path.name)))
    elif what == 2:
        path.mkdir()
    elif what == 3:
        path.write_bytes(bytes(int(pick(rng, (0, 1, LIMITS.each, LIMITS.each + 1)))))
    elif what == 4:
        with socket.socket(socket.AF_UNIX) as open_socket:
            here = os.getcwd()  # a socket's whole name must be short
            os.chdir(path.parent)
            try:
                open_socket.bind(path.name)
            finally:
                os.chdir(here)
    elif what == 5:
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"x")


def damaged_lists(case: Case) -> None:
    rng = case.rng
    lists = dict(case.bases.lists)
    name = pick(rng, list(lists))
    lists[name] = mutated(lists[name], rng)
    if rng.random() < 0.1:
        lists[name] = pick(rng, (b"\xff\xfe", b'filename,label\n"' + b"x" * 200_000, b"\0" * 9, b"", b"filename,label"))
    lay_out(case.folder, lists)
    classes = {split: [own] for split, own in miniimagenet.NAMES.items()}
    results = _read(lambda: miniimagenet.listed_images(case.folder, classes), ERRORS_OF_DATA)
    assert results is None or {label: len(names) for label, names in results.items()} == dict.fromkeys(
        miniimagenet.NAMES.values(), 600
    )


# What runs write


def _tabulated(path: Path, name: str, table: Callable[[Any], str]) -> str | None:
    actual = _read(lambda: results.load(path, name), (results.ResultsError,))
    return None if actual is None else table(actual)


def damaged_results(case: Case) -> None:
    name = pick(case.rng, list(case.bases.results))
    content, table = case.bases.results[name]
    _tabulated(case.put("results.json", mutated(json.dumps(content).encode(), case.rng)), name, table)


def forged_results(case: Case) -> None:
    name = pick(case.rng, list(case.bases.results))
    content, table = case.bases.results[name]
    path = case.put("results.json", mutated_json(content, case.rng).encode("utf-8", "surrogatepass"))
    text = _tabulated(path, name, table)
    if text is not None and name == "sinusoid" and case.rng.random() < 0.01:
        _read(lambda: plots.draw_all(case.folder, name, sinusoid_plots.PICTURES), (results.ResultsError,))


def damaged_metrics(case: Case) -> None:
    if case.rng.random() < 0.5:
        data = mutated(case.bases.metrics, case.rng)
    else:
        lines = case.bases.metrics.splitlines()
        place = int(case.rng.integers(len(lines)))
        lines[place] = mutated_json(json.loads(lines[place]), case.rng).encode("utf-8", "surrogatepass")
        data = b"\n".join(lines)
    for line in metrics.read(case.put("metrics.jsonl", data)):
        assert type(line["iteration"]) is int
        assert all(value is None or np.isfinite(float(value)) for value in line.values())


def no_file(case: Case) -> None:
    """Something else that has the name of a file."""
    readers: dict[str, tuple[Callable[[Path], Any], tuple[type[Exception], ...]]] = {
        "file.h5": (checkpoint.load, ERRORS_OF_CHECKPOINTS),
        "some.h5": (lambda path: imageset.read(path, "train"), ERRORS_OF_DATA),
        "some.npz": (lambda path: npz.arrays(path, ["images"], LIMITS), ERRORS_OF_DATA),
        "some.zip": (lambda path: archive.files(path, LIMITS), ERRORS_OF_DATA),
        "results.json": (lambda path: results.load(path, "sinusoid"), (results.ResultsError,)),
        "metrics.jsonl": (metrics.read, (OSError,)),
        "train.csv": (lambda path: miniimagenet.listed_images(path.parent, {"train": ["train"]}), ERRORS_OF_DATA),
        "hash": (archive.sha256, ERRORS_OF_DATA),
    }
    name = pick(case.rng, list(readers))
    path = case.folder / name
    _odd_entry(path, case.rng)
    actual = _read(lambda: readers[name][0](path), readers[name][1])
    assert actual is None or name in ("hash", "metrics.jsonl", "some.zip")


KINDS: tuple[Callable[[Case], None], ...] = (
    damaged_checkpoint,
    forged_checkpoint,
    twisted_checkpoint,
    damaged_prepared,
    forged_prepared,
    forged_seal,
    twisted_prepared,
    damaged_npz,
    forged_npz,
    damaged_zip,
    forged_zip,
    damaged_picture,
    odd_folder,
    damaged_lists,
    damaged_results,
    forged_results,
    damaged_metrics,
    no_file,
)


HERE = "tests.fuzz.files"


def kind_of(number: int, kinds: str = HERE) -> Callable[[Case], None]:
    """Which kind the case of a number is: those in a module's KINDS take turns."""
    results: tuple[Callable[[Case], None], ...] = importlib.import_module(kinds).KINDS
    return results[number % len(results)]


def run_case(bases: Bases, seed: int, number: int, kinds: str = HERE) -> None:
    """Raises what is wrong."""
    kind_of(number, kinds)(Case(bases, np.random.default_rng([seed, number])))


def run(seed: int, count: int, seconds: float, kinds: str = HERE, alarm: float = SECONDS) -> tuple[int, list[str]]:
    """Run the cases 0, 1, ... of a seed.

    Args:
        seed: the same cases for the same seed.
        count: how many, at most.
        seconds: how long, at most.
        kinds: the module whose KINDS are run.
        alarm: seconds that a case may take.

    Returns:
        How many were run, and what was wrong, a line each.
    """
    failures: list[str] = []
    first, deadline = 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="tinymaml-fuzz-", dir=_fast()) as scratch:
        position = Path(scratch) / "position"
        while first < count and (left := deadline - time.monotonic()) > 0:
            position.write_text(str(first))
            command = [sys.executable, "-m", HERE, "--seed", str(seed), "--count", str(count), "--seconds", str(left)]
            command += ["--first", str(first), "--position", str(position), "--kinds", kinds, "--alarm", str(alarm)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            failures += done.stdout.splitlines()
            reached = int(position.read_text())
            if done.returncode == 0:
                return reached, failures
            if done.returncode > 0:  # not a case, but this program
                raise RuntimeError(done.stderr)
            how = "never ended" if done.returncode == -signal.SIGALRM else f"killed by signal {-done.returncode}"
            failures.append(_described(kinds, seed, reached, how))
            first = reached + 1
    return first, failures


def _described(kinds: str, seed: int, number: int, what: str) -> str:
    return f"{kind_of(number, kinds).__name__}, --seed {seed} --case {number}: {what}"


def _work(seed: int, first: int, count: int, seconds: float, position: Path, kinds: str, alarm: float) -> None:
    """The cases from `first` on, in this process. What is wrong is printed; the file `position`, beside which files are
    made, has the number of the case that runs, and at the end of how many there were."""
    deadline = time.monotonic() + seconds
    folder = position.with_name(f"from-{first}")
    folder.mkdir()
    with position.open("r+") as now:
        bases, number = Bases(folder), first
        _limit_memory()
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while number < count and time.monotonic() < deadline:
            os.pwrite(now.fileno(), str(number).encode(), 0)
            signal.setitimer(signal.ITIMER_REAL, alarm)  # ends this process, wherever it is
            try:
                run_case(bases, seed, number, kinds)
            except Exception as error:
                what = f"{type(error).__name__}: {error}".replace("\n", " | ")[:600]
                print(_described(kinds, seed, number, what), flush=True)
            signal.setitimer(signal.ITIMER_REAL, 0)
            before, most = most, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            if most - before > MEMORY >> 10:  # kilobytes
                print(_described(kinds, seed, number, f"took {(most - before) >> 10} MB"), flush=True)
            number += 1
        os.pwrite(now.fileno(), str(number).encode(), 0)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _fast() -> str | None:
    """Where there is a folder in memory."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Damaged and forged files.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--case", type=int, help="run one case in this process")
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--position", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kinds", default=HERE, help=argparse.SUPPRESS)
    parser.add_argument("--alarm", type=float, default=SECONDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case is not None:
        with tempfile.TemporaryDirectory(prefix="tinymaml-fuzz-") as scratch:
            run_case(Bases(Path(scratch)), args.seed, args.case)
    elif args.position:
        _work(args.seed, args.first, args.count, args.seconds, args.position, args.kinds, args.alarm)
    else:
        done, failures = run(args.seed, args.count, args.seconds)
        print("\n".join([*failures, f"{done:,} cases, {len(failures)} failures"]))
        sys.exit(bool(failures))


if __name__ == "__main__":
    main()
