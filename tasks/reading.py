"""How files are opened and parsed: regular ones only, JSON of a bounded depth, errors of one line."""

from __future__ import annotations

import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

DEEPEST = 200  # of JSON: lists and objects in each other
_LONGEST = 2000  # characters of a message
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


class DataError(ValueError):
    """Files are not what they have to be; the message names the file and says what is wrong with it."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class NotAFile(DataError, OSError):
    """A folder, a pipe, a socket or a device where a file is expected."""


def one_line(message: str) -> str:
    """A message whatever the names in it: what does not print is written as an escape, the middle of long ones left
    out."""
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message)


def open_file(path: Path) -> BufferedReader:
    """A regular file, opened to be read; others are not even opened, as that may wait for ever.

    Raises:
        NotAFile: it is something else.
        OSError: it is not there, or cannot be opened.
    """
    must_be_a_file(path, path.stat())
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    try:
        must_be_a_file(path, os.fstat(file.fileno()))  # it may have been replaced
    except BaseException:
        file.close()
        raise
    return file


def must_be_a_file(path: Path, status: os.stat_result) -> None:
    """Raises NotAFile if what was found under a name is no regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise NotAFile(f"{path} is {_KINDS.get(stat.S_IFMT(status.st_mode), 'a device')}, not a file")


def read_file(path: Path, most: int) -> bytes:
    """A regular file's bytes.

    Raises:
        DataError: it has more than `most`.
        NotAFile, OSError: as `open_file`.
    """
    with open_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise DataError(f"{path} has more than the {most:,} bytes allowed")
    return data


def parse_json(text: str | bytes) -> Any:
    """What JSON text holds. Raises ValueError if it is none, or nested too deeply."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {DEEPEST} deep") from None
    check_depth(value)
    return value


def check_depth(value: Any) -> None:
    """Raises ValueError if lists and dicts are nested so deeply that `parse_json` would refuse them."""
    level, depth = [value], 0
    while inside := [each for each in level if isinstance(each, dict | list)]:
        if depth == DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        level = [item for each in inside for item in (each.values() if isinstance(each, dict) else each)]
        depth += 1
