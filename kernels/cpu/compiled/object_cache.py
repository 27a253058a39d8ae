"""LLVM's intermediate language to functions in memory; what was compiled is kept on disk for the next process.

The folder is $TINYMAML_CACHE, or tinymaml/ in $XDG_CACHE_HOME or ~/.cache. It belongs to the user alone: from one that
others may write to nothing is loaded.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

_lock = threading.Lock()
_engines: list[Any] = []  # they own the machine code


@cache
def _machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
    )


def _folder() -> Path | None:
    """The folder, made if need be; None if it cannot be used."""
    asked = os.environ.get("TINYMAML_CACHE")
    try:
        base = Path(asked) if asked else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinymaml"
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = base.stat()
    except (OSError, RuntimeError):
        return None
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return None if others or (hasattr(os, "getuid") and status.st_uid != os.getuid()) else base


def _read(path: Path | None) -> bytes | None:
    """What a file holds behind the checksum that it begins with; None if there is no such file, or it does not fit."""
    try:
        content = b"" if path is None else path.read_bytes()
    except OSError:
        return None
    return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else None


def _write(path: Path | None, content: bytes) -> None:
    """To a temporary name, synced, renamed; a folder or disk that does not take it only costs time, next time."""
    if path is None:
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)


def load(text: str, names: Sequence[str]) -> dict[str, int]:
    """The addresses of a module's functions, which stay where they are for the life of the process."""
    with _lock:
        machine = _machine()
        features = sorted(llvm.get_host_cpu_features().items())
        key = "\n".join([text, llvmlite.__version__, machine.triple, llvm.get_host_cpu_name(), str(features)])
        folder = _folder()
        path = None if folder is None else folder / f"{hashlib.sha256(key.encode()).hexdigest()}.o"
        found = _read(path)
        module = llvm.parse_assembly(text)
        if found is None:
            _optimise(module, machine)
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.set_object_cache(lambda _, content: _write(path, content), lambda _: found)
        engine.finalize_object()
        _engines.append(engine)
        return {name: engine.get_function_address(name) for name in names}


def _optimise(module: Any, machine: Any) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_interleaving = options.loop_unrolling = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
