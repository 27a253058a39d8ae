"""Checkpoints: HDF5 files that are whole or refused.

A file is ordinary HDF5 behind a user block of 512 bytes, which HDF5 leaves to applications. The block holds a magic
word, the format's version, and the length and SHA-256 of all that follows, and ends with a checksum of itself: a torn
or changed file is found out before HDF5 reads a byte of it. Arrays are data sets; structure and plain values are JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinymaml import __version__
from tinymaml.autodiff.tree import Tree
from tinymaml.tasks import hdf5
from tinymaml.tasks.extras import require
from tinymaml.tasks.reading import check_depth, one_line, open_file, parse_json
from tinymaml.train import files

FORMAT = 1
MAGIC = b"tinymaml checkpoint\n"
BLOCK = 512
_HEADER = struct.Struct("<20sIQ32s")  # magic, format, length of the rest, SHA-256 of the rest

KINDS = "fiub"  # of arrays: floating, integer, unsigned, boolean


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message names the file and says what is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class NewerCheckpoint(CheckpointError):
    """A checkpoint was made by a newer version, which has to go on with its run."""


class Checkpoint(NamedTuple):
    """What a file holds."""

    iteration: int
    settings: dict[str, Any]
    state: Tree


def save(path: Path, state: Tree, settings: dict[str, Any], iteration: int) -> None:
    """Write a checkpoint; under its name it is either whole or not there.

    Args:
        state: dicts with string keys, lists and tuples of arrays, numbers, strings, booleans and None. Of these types
            themselves: one derived from them, such as a named tuple, would not come back as it was.
        settings: what JSON can hold.

    Raises:
        TypeError: something else is in the state.
        ValueError: the state or the settings are nested too deeply, or too large, to be read again.
        MissingExtra: h5py is not installed.
        OSError: the disk is full, say; then the file that had this name is as it was, or the new one is whole there.
    """
    h5py = require("h5py", "train")
    buffer = io.BytesIO()
    arrays: list[Any] = []
    try:
        structure, plain = _json("the state", _encode(state, arrays)), _json("the settings", settings)
    except RecursionError:
        raise ValueError("a checkpoint cannot hold what contains itself, or is nested so deeply") from None
    with h5py.File(buffer, "w", userblock_size=BLOCK, libver=("earliest", "v110"), track_order=False) as file:
        file.attrs["structure"] = structure
        file.attrs["settings"] = plain
        file.attrs["iteration"] = iteration
        file.attrs["format_version"] = FORMAT
        file.attrs["created_by"] = f"tinymaml {__version__}"
        for i, array in enumerate(arrays):
            file.create_dataset(f"arrays/{i:04}", data=array, track_times=False)
    content = buffer.getvalue()[BLOCK:]
    header = _HEADER.pack(MAGIC, FORMAT, len(content), hashlib.sha256(content).digest())
    header += bytes(BLOCK - len(header) - 32)
    files.atomic_write(path, header + hashlib.sha256(header).digest() + content)


def check(state: Tree) -> None:
    """Raises TypeError if a checkpoint cannot hold a state; see `save`."""
    _encode(state, [])


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: the file is torn, changed, of another kind, or made by a newer version.
        OSError: it cannot be read at all.
        MissingExtra: h5py is not installed.
    """
    h5py = require("h5py", "train")
    data = _verified(path)
    # The checksum says that the rest is as it was written; the guard is for files made to deceive, for which HDF5
    # raises all kinds.
    try:
        with h5py.File(hdf5.Guarded(io.BytesIO(data)), "r") as file:
            arrays = _arrays(file, len(data))
            state = _decode(parse_json(hdf5.text(file, "structure")), arrays)
            if arrays:
                raise ValueError(f"its structure has no place for {len(arrays)} of its arrays")
            settings = parse_json(hdf5.text(file, "settings"))
            if not isinstance(settings, dict):
                raise TypeError("its settings are not a dict")
            iteration = hdf5.integer(file, "iteration")
            if iteration < 0:
                raise ValueError(f"its iteration is {iteration}")
            return Checkpoint(iteration, settings, state)
    except Exception as error:
        raise CheckpointError(f"{path} is not a checkpoint of this program: {error}") from error


def _verified(path: Path) -> bytes:
    """A file's bytes, which fit the checksums in its first block."""
    with open_file(path) as file:
        block = file.read(BLOCK)
        size = file.seek(0, io.SEEK_END)
        _check_block(path, block, size)
        file.seek(0)
        data = file.read(size)
    if hashlib.sha256(memoryview(data)[BLOCK:]).digest() != _HEADER.unpack_from(block)[3]:
        raise CheckpointError(f"{path} is damaged: its content does not fit its checksum")
    return data


def _check_block(path: Path, block: bytes, size: int) -> None:
    if not block.startswith(MAGIC):
        kind = "is empty" if not block else "is not a tinymaml checkpoint: it begins otherwise"
        raise CheckpointError(f"{path} {kind}; expected a file that `tinymaml train` wrote")
    if len(block) < BLOCK or hashlib.sha256(block[:-32]).digest() != block[-32:]:
        raise CheckpointError(f"{path} is damaged: its first {BLOCK} bytes do not fit their checksum")
    _, version, length, _ = _HEADER.unpack_from(block)
    if version > FORMAT:
        raise NewerCheckpoint(
            f"{path} was made by a newer tinymaml (format {version}, this one reads {FORMAT}): upgrade"
        )
    if version < 1:
        raise CheckpointError(f"{path} has the format {version}, which never was; this tinymaml reads 1 to {FORMAT}")
    if size - BLOCK != length:
        raise CheckpointError(f"{path} is torn: {size - BLOCK} bytes of content, {length} were written")


def _arrays(file: Any, size: int) -> dict[int, Any]:
    """The arrays of a file of so many bytes, by their numbers."""
    if not file.id.links.exists(b"arrays"):
        return {}
    group, reader = hdf5.member(file, "arrays"), hdf5.Reader(size)
    return {i: reader.array(group, f"{i:04}", KINDS) for i in range(len(group))}


def _json(what: str, value: Any) -> str:
    """As JSON. Raises ValueError if `load` would refuse it."""
    text = json.dumps(value)  # first: of what contains itself the depth has no end
    check_depth(value)
    if len(text) > hdf5.MOST_TEXT:
        raise ValueError(
            f"{what} of a checkpoint may have {hdf5.MOST_TEXT:,} bytes as JSON, got {len(text):,}: "
            "hold numbers in arrays"
        )
    return text


def _encode(value: Any, arrays: list[Any]) -> Any:
    """The structure as JSON: containers tagged with their kind, arrays by number, plain values as they are."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is np.ndarray or isinstance(value, np.generic):
        if value.dtype.kind not in KINDS:
            raise TypeError(f"a checkpoint holds arrays of numbers, not of {value.dtype}")
        arrays.append(np.asarray(value))
        return {"array" if isinstance(value, np.ndarray) else "scalar": len(arrays) - 1}
    if type(value) is float:
        return {"float": value.hex()}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: _encode(item, arrays) for key, item in value.items()}}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_encode(item, arrays) for item in value]}
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}: {value!r}")


def _decode(value: Any, arrays: dict[int, Any]) -> Tree:
    """What `_encode` was given; arrays that have their place are taken out."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind in ("array", "scalar"):
        if type(content) is not int or content not in arrays:
            raise ValueError(f"there is no array {content}, or it is used twice")
        array = arrays.pop(content)
        return array if kind == "array" else array.reshape(())[()]
    if kind == "float":
        return float.fromhex(content)
    if kind == "dict":
        return {key: _decode(item, arrays) for key, item in content.items()}
    return {"list": list, "tuple": tuple}[kind](_decode(item, arrays) for item in content)


def write_numbered(folder: Path, state: Tree, settings: dict[str, Any], iteration: int, keep: int = 3) -> Path:
    """Save as `folder/ITERATION.h5`; then older ones beyond `keep` (>= 1) are removed.

    Files of a later iteration stay: they are bad ones that `latest` passed over, no reason to remove a good one.
    """
    if keep < 1:
        raise ValueError(f"keep: expected at least 1 checkpoint to keep, got {keep}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{iteration:09}.h5"
    save(path, state, settings, iteration)
    older = [other for other in _numbered(folder) if int(other.stem) < iteration]
    for old in older[keep - 1 :]:
        old.unlink(missing_ok=True)
    return path


def latest(folder: Path, report: Callable[[str], None] | None = None) -> Checkpoint | None:
    """The newest good checkpoint in a folder, None if it has none at all; bad ones above it are reported.

    Raises:
        NewerCheckpoint: the newest good one was made by a newer version; older ones are not taken instead, as going on
            from them would replace what that version wrote.
        CheckpointError: there are checkpoints, and none is good.
    """
    while (numbered := _numbered(folder)) or (numbered := _numbered(folder)):  # a list made during changes may be short
        bad: list[str] = []
        for path in numbered:
            try:
                whole = load(path)
            except NewerCheckpoint:
                raise
            except CheckpointError as error:
                bad.append(str(error))
                continue
            except FileNotFoundError as error:
                if _numbered(folder) != numbered:
                    break  # training wrote a newer one, and removed this
                bad.append(f"{path} cannot be read: {error}")
                continue
            except OSError as error:
                bad.append(f"{path} cannot be read: {error}")
                continue
            for message in bad:
                (report or _warn)(f"{message}; going on from {path.name}")
            return whole
        else:
            raise CheckpointError(f"no checkpoint in {folder} is good: {'; '.join(bad)}")
    return None


def _warn(message: str) -> None:
    print(f"tinymaml: {message}", file=sys.stderr)


def _numbered(folder: Path) -> list[Path]:
    """Checkpoints in a folder, newest first."""
    numbered = (path for path in folder.glob("*.h5") if path.stem.isascii() and path.stem.isdecimal())
    return sorted(numbered, key=lambda path: -int(path.stem))
