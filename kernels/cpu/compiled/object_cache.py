"""LLVM's intermediate language to functions in memory; what was compiled is kept on disk for the next process.

Modules of the same text are compiled once and have one copy of the code, for as long as something uses it. On disk they
lie in a folder of the user's own (`folders`), which holds at most $TINYMAML_CACHE_SIZE megabytes: what has not been
used for longest goes first.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import llvmlite
import llvmlite.binding as llvm
from numba.core.compiler_lock import global_compiler_lock

from tinymaml.kernels.cpu.compiled import folders

SIZE = 100  # megabytes that the folder holds unless $TINYMAML_CACHE_SIZE says otherwise: thousands of modules

_NAME = re.compile(r"[0-9a-f]{64}\.o(\.\d+\.\d+)?")  # of a file of ours, and of one that is being written
_lock = threading.Lock()
_unlisted = 0  # bytes that may be written before a look at what the folder holds


class Code:
    """A module's functions in memory, which are there for as long as this object is.

    Attributes:
        addresses: where the functions are, by their names.
    """

    def __init__(self, engine: Any, names: Sequence[str]) -> None:
        self._engine = engine  # owns the machine code
        self.addresses: dict[str, int] = {name: engine.get_function_address(name) for name in names}


_codes: WeakValueDictionary[str, Code] = WeakValueDictionary()


@cache
def _host() -> tuple[Any, str, str]:
    """The target, the processor's name and its features."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _machine() -> Any:
    """One for each engine, which takes it with it."""
    target, cpu, features = _host()
    return target.create_target_machine(cpu=cpu, features=features, opt=3, jit=True)


def limit() -> int:
    """How many bytes the folder holds. Raises ValueError if TINYMAML_CACHE_SIZE is not a whole number >= 0."""
    asked = os.environ.get("TINYMAML_CACHE_SIZE") or str(SIZE)
    if not asked.isdecimal() or len(asked) > 9:
        raise ValueError(f"TINYMAML_CACHE_SIZE must be a whole number of megabytes, got {asked!r}")
    return int(asked) << 20


def _read(path: Path | None) -> bytes | None:
    """What a file holds behind the checksum that it begins with; None if there is no such file, it does not fit, or
    somebody else could have written it."""
    if path is None:
        return None
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    except OSError:
        return None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or not folders.is_own(status):
            return None
        with open(file, "rb", closefd=False) as opened:
            content = opened.read()
        _touch(path)
    except OSError:
        return None
    finally:
        os.close(file)
    return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else None


_BINARY = getattr(os, "O_BINARY", 0)  # Windows


def _touch(path: Path) -> None:
    """It was used now."""
    try:
        os.utime(path)
    except OSError:  # another process may just have thrown it away
        return


def _write(path: Path | None, content: bytes) -> None:
    """To a temporary name, synced, renamed; a folder or disk that does not take it only costs time, next time."""
    if path is None:
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
        with open(file, "wb") as opened:
            opened.write(hashlib.sha256(content).digest() + content)
            opened.flush()
            os.fsync(file)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        return
    _make_room(path.parent, len(content))


def _make_room(folder: Path, written: int) -> None:
    """Throw away what has not been used for longest once the folder holds too much; other processes may do the same.

    It is looked at before a sixteenth of what it may hold has been written.
    """
    global _unlisted
    most = limit()
    _unlisted -= written
    if _unlisted > 0:
        return
    _unlisted = most // 16
    files = []
    for entry in os.scandir(folder):
        if _NAME.fullmatch(entry.name):
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            files.append((status.st_mtime, status.st_size, Path(entry.path)))
    held = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if held <= most:
            break
        try:
            path.unlink(missing_ok=True)
        except OSError:  # Windows, while it is read
            continue
        held -= size


def held() -> int:
    """Bytes that the folder holds."""
    folder = folders.folder()
    names = () if folder is None else os.scandir(folder)
    return sum(entry.stat(follow_symlinks=False).st_size for entry in names if _NAME.fullmatch(entry.name))


def load(text: str, names: Sequence[str]) -> Code:
    """The functions of a module."""
    with _lock:
        target, cpu, features = _host()
        key = "\n".join([text, llvmlite.__version__, target.triple, cpu, features])
        name = hashlib.sha256(key.encode()).hexdigest()
        code = _codes.get(name)
        if code is None:
            code = _codes[name] = Code(_compiled(text, name), names)
        return code


def _compiled(text: str, name: str) -> Any:
    """An engine with a module's code."""
    machine = _machine()
    folder = folders.folder()
    path = None if folder is None or not limit() else folder / f"{name}.o"
    cached = _read(path)
    module = llvm.parse_assembly(text)
    if cached is None:
        _optimise(module, machine)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.set_object_cache(lambda _, content: _write(path, content), lambda _: cached)
    engine.finalize_object()
    return engine


def _optimise(module: Any, machine: Any) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_interleaving = options.loop_unrolling = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


# In the order in which they are taken: ours, Numba's, and llvmlite's, which every call of LLVM takes, also the one that
# frees what a program that has gone leaves.
_COMPILER: tuple[Any, ...] = (_lock, global_compiler_lock, llvm.ffi.lib._lock)


def _before_fork() -> None:
    """A compiler that another thread is in is waited for: in the child it would be left as it is, half way and
    locked."""
    for lock in _COMPILER:
        lock.__enter__()


def _after_fork() -> None:
    for lock in reversed(_COMPILER):
        lock.__exit__(None, None, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
