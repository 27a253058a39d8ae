"""tinymaml's functions by name: the operators of a tensor call them, and errors speak of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

# The operators of Tensor are looked up here by name; tinymaml.ops fills it in.
OPERATORS: dict[str, Callable[..., Any]] = {}
_INSIDE = ("tinymaml.ops.", "tinymaml.autodiff.")  # where they are made


def public_name(inner: str) -> str:
    """The function of tinymaml that the caller called, for an error inside of it; `inner` if it called that itself.

    It is looked up on the stack, so that calls that succeed do nothing for it.
    """
    outermost = inner
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_INSIDE):
        name = frame.f_code.co_name
        if getattr(OPERATORS.get(name), "__code__", None) is frame.f_code:
            outermost = name
        frame = frame.f_back
    return outermost
