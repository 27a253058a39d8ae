"""The first block of a data set's file, by which all that follows is checked before HDF5 reads a byte of it.

HDF5 leaves a block at a file's beginning to applications, and may crash or never end on what was damaged behind it. The
block holds a magic word, JSON, and a checksum of itself. The JSON says the file's size, which stretches of it are
images, which have hashes of their own, and the SHA-256 of everything else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinymaml.tasks.reading import DataError, open_file, parse_json

FORMAT = 1
BLOCK = 4096
_MAGIC = b"tinymaml images\n"
_PIECE = 1 << 20


def write_block(path: Path, images: Sequence[tuple[int, int]]) -> None:
    """Write the block.

    Args:
        path: of an HDF5 file with a user block of `BLOCK` bytes.
        images: offset and length of the stretches that are images.
    """
    apart = sorted(images)
    size = path.stat().st_size
    facts = {"format": FORMAT, "size": size, "images": apart, "sha256": _rest(path, size, apart)}
    head = (_MAGIC + json.dumps(facts).encode()).ljust(BLOCK - 32, b"\0")
    with path.open("rb+") as file:
        file.write(head + hashlib.sha256(head).digest())


def check_block(path: Path, hint: str) -> None:
    """Check a file, but for its images.

    Raises:
        DataError: it is of another kind or format, torn or changed; the message ends with the hint.
    """
    with open_file(path) as file:
        block = file.read(BLOCK)
    if not block.startswith(_MAGIC):
        what = "is no data set: it begins otherwise" if block else "is empty"
        raise DataError(f"{path} {what}; {hint}")
    if len(block) < BLOCK or hashlib.sha256(block[:-32]).digest() != block[-32:]:
        raise DataError(f"{path} is damaged: its first {BLOCK} bytes do not fit their checksum; {hint}")
    try:
        facts = _facts(parse_json(block[len(_MAGIC) : -32].rstrip(b"\0")))
    except ValueError as error:
        raise DataError(f"{path} is no data set of this program: {error}; {hint}") from error
    if facts.format != FORMAT:
        raise DataError(f"{path} has the format {facts.format}, this tinymaml reads {FORMAT}; {hint}")
    size = path.stat().st_size
    if size != facts.size:
        raise DataError(f"{path} is torn: it has {size:,} bytes, {facts.size:,} were written; {hint}")
    if _rest(path, size, facts.images) != facts.sha256:
        raise DataError(f"{path} is damaged: what is not images does not fit its checksum; {hint}")


class _Facts(NamedTuple):
    """What the block says."""

    format: int
    size: int
    images: list[list[int]]
    sha256: str


def _facts(block: Any) -> _Facts:
    """Raises ValueError if the block's JSON is not what `write_block` writes."""
    kinds = {"format": int, "size": int, "images": list, "sha256": str}
    if not isinstance(block, dict) or {name: type(value) for name, value in block.items()} != kinds:
        raise ValueError(f"its first block has not just {', '.join(kinds)}")
    facts, end = _Facts(**block), BLOCK
    for place in facts.images:
        if not isinstance(place, list) or [type(number) for number in place] != [int, int]:
            raise ValueError("a stretch of images is not two numbers")
        if place[0] < end or place[1] < 0:
            raise ValueError("the stretches of images are not in order")
        end = sum(place)
    if end > facts.size:
        raise ValueError("the stretches of images are longer than the file")
    return facts


def _rest(path: Path, size: int, images: Sequence[Sequence[int]]) -> str:
    """SHA-256 of everything behind the block that is not images."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        place = BLOCK
        for offset, length in [*images, (size, 0)]:
            file.seek(place)
            while place < offset and (data := file.read(min(_PIECE, offset - place))):
                digest.update(data)
                place += len(data)
            place = offset + length
    return digest.hexdigest()
