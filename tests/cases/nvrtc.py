"""NVIDIA's run-time compiler, from its wheel, without a GPU, a driver or CuPy."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tinymaml.kernels.gpu.launch import Unit

# Arithmetic on doubles; loading one and making a float of it is none.
_DOUBLE = re.compile(r"^\s*(?:add|sub|mul|div|fma|mad|sqrt|rcp|neg|abs|min|max|setp\S*)\S*\.f64\b.*$", re.MULTILINE)


class Kernel(NamedTuple):
    """What the compiler makes of a kernel; `spilled` are bytes of registers that went to memory."""

    registers: int
    shared: int
    stack: int
    spilled: int
    doubles: tuple[str, ...]  # instructions that compute in float64


@cache
def library() -> Any:
    """The compiler; skips the test that asks for it if it is not installed."""
    found = importlib.util.find_spec("nvidia")
    places = [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    libraries = sorted(
        path for place in places for path in place.glob("*/lib/libnvrtc*.so.*") if ".alt." not in path.name
    )
    if len(libraries) < 2:
        pytest.skip("needs NVIDIA's run-time compiler, nvidia-cuda-nvrtc of the dev extra (Linux on x86-64)")
    builtins, compiler = libraries[0], libraries[-1]
    ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    loaded = ctypes.CDLL(str(compiler))
    loaded.nvrtcGetErrorString.restype = ctypes.c_char_p
    return loaded


def _call(name: str, *arguments: Any) -> None:
    status = getattr(library(), f"nvrtc{name}")(*arguments)
    if status:
        raise RuntimeError(f"nvrtc{name}: {library().nvrtcGetErrorString(status).decode()}")


def _text(program: Any, what: str) -> str:
    size = ctypes.c_size_t()
    _call(f"Get{what}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _call(f"Get{what}", program, buffer)
    return buffer.value.decode()


def compiled(unit: Unit, arch: str) -> dict[str, Kernel]:
    """By name what the compiler makes of each kernel, for a GPU like "sm_90".

    Raises:
        RuntimeError: the compiler refuses the source, or warns of it; the message is its own.
    """
    program = ctypes.c_void_p()
    _call("CreateProgram", ctypes.byref(program), unit.source.encode(), b"kernels.cu", 0, None, None)
    for name in unit.names:
        _call("AddNameExpression", program, name.encode())
    # CuPy adds the first; the second has the assembler say what the kernels take.
    options = [*unit.options, "-ftz=true", "--ptxas-options=-v", f"-arch={arch}"]
    given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    status = library().nvrtcCompileProgram(program, len(options), given)
    log = _text(program, "ProgramLog")
    if status or "warning" in log or "error" in log:
        raise RuntimeError(f"{arch}: {log[:4000]}")
    reports = {part.split("'")[0]: part for part in log.split("Compiling entry function '")[1:]}
    texts = {part.split("(")[0]: part for part in _text(program, "PTX").split(".entry ")[1:]}
    patterns = (r"Used (\d+) registers", r"(\d+) bytes smem", r"(\d+) bytes stack frame", r"(\d+) bytes spill stores")
    found = {}
    for name in unit.names:
        pointer = ctypes.c_char_p()
        _call("GetLoweredName", program, name.encode(), ctypes.byref(pointer))
        lowered = (pointer.value or b"").decode()
        # A report is of the kernel and of the functions that it calls.
        figures = [sum(map(int, re.findall(pattern, reports[lowered]))) for pattern in patterns]
        found[name] = Kernel(*figures, tuple([line.strip() for line in _DOUBLE.findall(texts[lowered])]))
    _call("DestroyProgram", ctypes.byref(program))
    return found
