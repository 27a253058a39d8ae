"""What is done to bytes, to JSON and to HDF5 to make them wrong; every choice is the generator's."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator

WORDS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_DEEP = {f"@deep {n}@": "[" * n + "]" * n for n in (50, 150, 300, 100_000)} | {
    "@deep objects@": '{"a":' * 2000 + "1" + "}" * 2000,
    "@nan@": "NaN",
    "@infinity@": "-Infinity",
    "@large@": "1e999",
    "@digits@": "9" * 400,
    "@more digits@": "9" * 5000,
}
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 10**6, 2**53 + 1, 2**63, 2**64, 2**70, 1.5, -0.0, 1e308, -1e308, 5e-324, "", "x",
    "1", "²", "-1", "0x1p99999", "\x1b[2J\n", "\ud800", "a" * 5000, [], {}, [[]], [None], [1, 2], {"": 0},
    {"array": 0}, {"float": "nan"}, *_DEEP,
)  # fmt: skip


def pick(rng: Rng, among: Any) -> Any:
    """One of a sequence."""
    return among[int(rng.integers(len(among)))]


def mutated(data: bytes, rng: Rng, within: range | None = None) -> bytes:
    """Bytes with one to three changes; those that keep the length can be held to a range of places."""
    content = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if not content:
            return bytes(rng.bytes(3))
        place = int(pick(rng, within)) if within else int(rng.integers(len(content)))
        place = min(place, len(content) - 1)
        length = int(rng.integers(1, 64))
        what = int(rng.integers(4 if within else 9))
        if what == 0:
            content[place] ^= 1 << int(rng.integers(8))
        elif what == 1:
            content[place] = int(rng.integers(256))
        elif what == 2:
            size = int(pick(rng, (1, 2, 4, 8)))
            word = (pick(rng, WORDS) % 256**size).to_bytes(size, "little")
            content[place : place + size] = word[: len(content) - place]
        elif what == 3:
            other = int(pick(rng, within)) if within else int(rng.integers(len(content)))
            length = min(length, len(content) - place, len(content) - other)
            content[place : place + length] = content[other : other + length]
        elif what == 4:
            del content[place:]
        elif what == 5:
            del content[place : place + length]
        elif what == 6:
            content[place:place] = rng.bytes(length)
        elif what == 7:
            content[place:place] = content[place : place + length]
        else:
            content[place : place + length] = bytes(len(content[place : place + length]))
    return bytes(content)


def mutated_json(value: Any, rng: Rng) -> str:
    """JSON text of a value with one to three changes anywhere in it."""
    value = json.loads(json.dumps(value))
    for _ in range(int(rng.integers(1, 4))):
        value = _changed(value, rng)
    text = json.dumps(value)
    for name, deep in _DEEP.items():
        text = text.replace(json.dumps(name), deep)
    return text


def _changed(value: Any, rng: Rng) -> Any:
    """A value in which one, at any depth, is another, or gone, or there twice."""
    inside = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if type(value) in (int, float) and rng.random() < 0.5:
        return pick(rng, (0, 1, 2, 0.5, 7.0, 1e6, 1e300, -3))
    if not inside or rng.random() < 0.1:
        return copy.deepcopy(pick(rng, ODD))
    place, what = pick(rng, inside), rng.random()
    if what < 0.7:
        value[place] = _changed(value[place], rng)
    elif what < 0.85:
        del value[place]
    elif isinstance(value, dict):
        value[pick(rng, ("", "x", "²", "7", "-1", "inductive", "\x1b", str(place).upper()))] = value.pop(place)
    else:
        value[place:place] = [value[place]] * int(pick(rng, (1, 50)))
    return value


_TYPES: tuple[Any, ...] = (
    "f2", "f4", "f8", ">f8", "i1", "i8", ">i4", "u1", "u8", "?", "c8", "S5", "S100000", "V7", "g",
    [("a", "f4"), ("b", "S3")], ("u1", (3,)), ("f8", (1000, 1000)),
)  # fmt: skip
_SHAPES: tuple[Any, ...] = (
    (), (0,), (1,), (3,), (4,), (0, 10**18), (2**32, 2**32), (10**9,), (2**40,), (2, 4, 5, 3), (5, 32), (1,) * 32,
)  # fmt: skip


def twist(file: Any, names: tuple[str, ...], texts: tuple[str, ...], folder: Path, rng: Rng) -> None:
    """Change the structure of an open HDF5 file.

    Args:
        names: of its groups and data sets.
        texts: of its attributes that hold JSON.
        folder: has a pipe called `pipe`.

    What h5py refuses to make is left out.
    """
    with contextlib.suppress(KeyError, OSError, ValueError, TypeError, OverflowError, RuntimeError):
        _twist(file, names, texts, folder, rng)


def _twist(file: Any, names: tuple[str, ...], texts: tuple[str, ...], folder: Path, rng: Rng) -> None:
    import h5py

    what = int(rng.integers(12))
    if what < 3:
        attribute = pick(rng, (*texts, "iteration"))
        _odd_attribute(file, attribute, rng)
        return
    if what < 5 and texts:
        attribute = pick(rng, texts)
        file.attrs[attribute] = mutated_json(json.loads(file.attrs[attribute]), rng)
        return
    name = pick(rng, names)
    group, _, leaf = name.rpartition("/")
    holder = file[group] if group else file
    if not isinstance(holder, h5py.Group) or leaf not in holder:
        return
    before = holder[leaf] if what == 5 else None
    del holder[leaf]
    if what == 5:
        for i in range(int(pick(rng, (1, 5, 100)))):
            holder[leaf if i == 0 else f"{i:04}"] = before
    elif what == 6:
        holder[leaf] = h5py.SoftLink(pick(rng, (f"/{name}", "/", "/nowhere", f"/{names[-1]}", ".", "x/../y")))
    elif what == 7:
        holder[leaf] = h5py.ExternalLink(
            pick(rng, (str(folder / "pipe"), "nowhere", "file.h5", "/dev/zero")), f"/{name}"
        )
    elif what == 8:
        holder[leaf] = pick(rng, (lambda: holder, lambda: file["/"], lambda: np.dtype("f4")))()
    elif what == 9:
        holder.create_group(leaf)
    elif what == 10:
        pass
    else:
        _odd_dataset(holder, leaf, folder, rng)


def _odd_attribute(file: Any, name: str, rng: Rng) -> None:
    import h5py

    values: tuple[Any, ...] = (
        1, -1, 2**63, 1.5, float("nan"), True, "", "x", "{}", "[]", "1", b"x", b"\xff\xfe", "ü", np.zeros(3),
        np.zeros((0,)), np.array([b"a", b"bb"]), ["a", "b"], h5py.Empty("f4"), h5py.Empty(h5py.string_dtype()),
        np.void(b"abc"), file.ref, "[" * 50_000, " " * 70_000 + "{}", np.zeros(7000), 1j,
    )  # fmt: skip
    if rng.random() < 0.1:
        del file.attrs[name]
    elif rng.random() < 0.1:
        file.attrs.create(name, ["a" * 1000] * 100, dtype=h5py.string_dtype())
    else:
        file.attrs[name] = pick(rng, values)


def _odd_dataset(group: Any, name: str, folder: Path, rng: Rng) -> None:
    """A data set such as nobody writes."""
    import h5py

    kind, shape = pick(rng, _TYPES), pick(rng, _SHAPES)
    size = int(np.prod(shape, dtype=float))
    if 1 << 24 < size * np.dtype(kind).itemsize < 1 << 33:  # HDF5 would make room for it here
        shape, size = (1,), 1
    makers: tuple[Callable[[], Any], ...] = (
        lambda: group.create_dataset(name, shape, kind),
        lambda: group.create_dataset(name, shape, kind, fillvalue=np.zeros((), kind)),
        lambda: group.create_dataset(name, shape, kind, chunks=True, compression="gzip"),
        lambda: group.create_dataset(name, (2**24,), "f8", chunks=(2**24,), maxshape=(None,), fillvalue=1.0),
        lambda: group.create_dataset(name, (1,), "u1", chunks=(2**27,), maxshape=(None,)),
        lambda: group.create_dataset(name, shape, "i4", chunks=True, scaleoffset=3, shuffle=True),
        lambda: group.create_dataset(name, (3,), kind, external=[(str(folder / "pipe"), 0, h5py.h5f.UNLIMITED)]),
        lambda: group.create_dataset(name, (3,), "u1", external=[("/dev/zero", 0, 3)]),
        lambda: group.create_dataset(name, shape, h5py.string_dtype()),
        lambda: group.create_dataset(name, (3,), h5py.vlen_dtype(np.int32)),
        lambda: group.create_dataset(name, (3,), h5py.ref_dtype),
        lambda: group.create_dataset(name, (3,), h5py.enum_dtype({"a": 0, "b": 1}, basetype="u1")),
        lambda: group.create_dataset(name, data=h5py.Empty(kind)),
        lambda: _virtual(group, name, folder),
        lambda: _packed(group, name),
        lambda: _compact(group, name),
        lambda: group.create_dataset(name, data=np.zeros(shape if size < 1000 else (3,), kind)),
    )
    pick(rng, makers)()


def _virtual(group: Any, name: str, folder: Path) -> None:
    import h5py

    layout = h5py.VirtualLayout((10**7,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "pipe"), "x", (10**7,))
    group.create_virtual_dataset(name, layout)


def _packed(group: Any, name: str) -> None:
    """Zeros that take a thousandth of their bytes."""
    group.create_dataset(name, (2**18,), "u1", chunks=(2**18,), compression="gzip")[:1] = 1


def _compact(group: Any, name: str) -> None:
    import h5py

    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.NATIVE_INT64, space, layout).write(
        space, space, np.zeros(4, "i8")
    )
