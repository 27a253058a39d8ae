"""Files of others, read with suspicion: folders and zip archives are listed and checked before a byte of them is used.

Nothing is ever unpacked to the disk. Refused, with the file's name: members that point outside, symbolic links and
other special files, duplicates, encrypted members, more or larger files than the data set can have, and pickles.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple, Self

from tinymaml.tasks.atomic_files import replacing
from tinymaml.tasks.reading import DataError, open_file, read_file

__all__ = ["DataError", "Files", "Limits", "Report", "ZipFiles", "download", "open_files", "progress_counter"]

PICKLES = (".pkl", ".pickle", ".pt", ".pth")
IGNORED = (".DS_Store", "Thumbs.db", "desktop.ini")  # what desktops leave in folders
Report = Callable[[int, int], None]  # called with how much is done, and how much there is


class Limits(NamedTuple):
    """What a data set can have at most."""

    files: int  # folders are counted too
    each: int  # bytes of one file
    total: int  # bytes of all


class Files:
    """The files below a folder, or in a zip archive, by their names relative to it with `/` between the parts."""

    def __init__(self, path: Path, sizes: dict[str, int], limits: Limits) -> None:
        self.path, self.names = path, sorted(sizes)
        self._limits = limits
        for name in self.names:
            refuse_pickle(name, self.where(name))
            if name.encode(errors="replace").decode() != name:
                raise DataError(f"{self.where(name)} has a name that is not UTF-8")
            if sizes[name] > limits.each:
                raise DataError(f"{self.where(name)} has {sizes[name]:,} bytes, more than the {limits.each:,} allowed")
        if sum(sizes.values()) > limits.total:
            total = sum(sizes.values())
            raise DataError(f"{path} has {total:,} bytes in its files, more than the {limits.total:,} allowed")

    def where(self, name: str) -> str:
        """A file's name for messages."""
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises DataError: it is damaged, or longer than it said."""
        return read_file(self.path / name, self._limits.each)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


# What `zipfile` raises for damaged archives.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, RuntimeError)


class ZipFiles(Files):
    """The files in a zip archive."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._file = open_file(path)
        try:
            # The list of members is held in memory, and is part of the file: its size bounds both.
            size, most = os.fstat(self._file.fileno()).st_size, limits.total + 1024 * limits.files
            if size > most:
                raise DataError(f"{path} has {size:,} bytes, more than the {most:,} allowed")
            try:
                self._archive = zipfile.ZipFile(self._file)
            except _DAMAGE as error:
                raise DataError(f"{path} is not a whole zip archive: {error}") from error
            super().__init__(path, _members(path, self._archive, _announced(self._file), limits), limits)
        except BaseException:
            self._file.close()
            raise

    def where(self, name: str) -> str:
        return f"{name} in {self.path}"

    def read(self, name: str) -> bytes:
        member = self._archive.getinfo(name)
        try:
            with self._archive.open(member) as file:  # yields no more than the size that was checked
                data = file.read()
        except _DAMAGE as error:
            raise DataError(f"{self.where(name)} is damaged: {error}") from error
        if len(data) != member.file_size:
            raise DataError(f"{self.where(name)} has {len(data):,} bytes, {member.file_size:,} were announced")
        return data

    def __exit__(self, *exception: object) -> None:
        self._archive.close()
        self._file.close()


def open_files(path: Path, limits: Limits) -> Files:
    """Open a folder or a zip archive, as a context.

    Raises:
        DataError: it is neither, or holds something that is refused.
        FileNotFoundError: it is not there.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there")
    if path.is_dir():
        return Files(path, _below(path, limits), limits)
    refuse_pickle(path.name, str(path))
    if path.suffix.lower() != ".zip":
        raise DataError(f"{path} is neither a folder nor a zip archive")
    return ZipFiles(path, limits)


def refuse_pickle(name: str, where: str) -> None:
    """Raises DataError if the name is that of a pickle."""
    if name.lower().removesuffix(".gz").endswith(PICKLES):
        raise DataError(
            f"{where} is a pickle, and those are never read: unpickling runs whatever code the file holds. "
            "Take the images themselves, or an .npz file of arrays"
        )


def progress_counter(total: int, report: Report | None) -> Callable[[int], None]:
    """What adds up how much is done, and reports it."""
    done = 0

    def tick(more: int) -> None:
        nonlocal done
        done += more
        if report is not None:
            report(done, total)

    return tick


def _ignored(parts: list[str]) -> bool:
    return parts[0] == "__MACOSX" or parts[-1] in IGNORED


def _below(top: Path, limits: Limits) -> dict[str, int]:
    """Sizes of the files below a folder."""
    sizes: dict[str, int] = {}
    folders, seen = [top], 0
    while folders:
        folder = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                seen += 1
                if seen > limits.files:
                    raise DataError(f"{top} has more than the {limits.files:,} files and folders allowed")
                if entry.is_symlink():
                    raise DataError(f"{entry.path} is a symbolic link; copy what it points to")
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    raise DataError(f"{entry.path} is neither a file nor a folder")
                elif not _ignored([entry.name]):
                    name = Path(entry.path).relative_to(top).as_posix()
                    sizes[name] = entry.stat(follow_symlinks=False).st_size
    return sizes


def _members(path: Path, archive: zipfile.ZipFile, announced: int, limits: Limits) -> dict[str, int]:
    """Sizes of the files in an archive, in whose last record so many members are announced, in 16 bits."""
    members = archive.infolist()
    if len(members) > limits.files:
        raise DataError(f"{path} has {len(members):,} files and folders, more than the {limits.files:,} allowed")
    if announced not in (min(len(members), 0xFFFF), len(members) & 0xFFFF):
        raise DataError(f"{path} is damaged: it has {len(members):,} files and folders, {announced:,} announced")
    sizes: dict[str, int] = {}
    for member in members:
        name = member.orig_filename  # `filename` was cut at a zero byte and has other separators
        parts = name.removesuffix("/").split("/")
        if any(part in ("", ".", "..") for part in parts) or any(letter in name for letter in "\\:\0"):
            raise DataError(f"{path} has a member that could leave its folder: {name!r}")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a symbolic link" if kind == stat.S_IFLNK else "neither a file nor a folder"
            raise DataError(f"{name} in {path} is {what}")
        if member.is_dir() or _ignored(parts):
            continue
        if member.flag_bits & 1:
            raise DataError(f"{name} in {path} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{name} in {path} is packed by method {member.compress_type}; only deflate is read")
        if name in sizes:
            raise DataError(f"{name} is in {path} twice")
        sizes[name] = member.file_size
    return sizes


def _announced(file: BufferedReader) -> int:
    """The number of members by an archive's last record, in 16 bits; `zipfile` passes over it."""
    file.seek(-min(file.seek(0, os.SEEK_END), 22 + 0xFFFF), os.SEEK_END)  # the record, and a comment after it
    tail = file.read()
    place = tail.rfind(b"PK\5\6") + 10
    return int.from_bytes(tail[place : place + 2], "little")


def sha256(path: Path) -> str:
    """A file's hash."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, path: Path, size: int, expected: str, report: Report | None = None) -> None:
    """Fetch a file whose size and SHA-256 are known; under its name it is that file or not there.

    Raises:
        DataError: what came is something else.
        OSError: it cannot be had, or not be written.
    """
    import http.client
    import urllib.request

    if not url.startswith(("https://", "http://")):
        raise DataError(f"{url} is not an address of the web")
    digest, done = hashlib.sha256(), 0
    try:
        with (
            replacing(path) as temporary,
            urllib.request.urlopen(url, timeout=60) as response,
            temporary.open("wb") as file,
        ):
            while done <= size and (data := response.read(1 << 16)):
                done += len(data)
                digest.update(data)
                file.write(data)
                if report is not None:
                    report(min(done, size), size)
            if done != size:
                got = f"more than {size:,}" if done > size else f"{done:,} of {size:,}"
                raise DataError(f"{url} gave {got} bytes; nothing was kept")
            if digest.hexdigest() != expected:
                raise DataError(f"{url} has the SHA-256 {digest.hexdigest()}, not {expected}; nothing was kept")
    except http.client.HTTPException as error:
        raise OSError(f"{url}: {error!r}") from error
    except OSError as error:
        raise OSError(f"{url} -> {path}: {error}") from error
