"""Numba's `njit`, with a place for what it compiles wherever there is one.

By itself Numba keeps it in $NUMBA_CACHE_DIR, beside the source files, or in a folder of the user's; where it can write
to none of them, it refuses the function. Then, and only then, it is set to the folder that programs are kept in
(`folders`); and without any, nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

from tinymaml.kernels.cpu.compiled import folders

config: Any = numba.config  # Numba's settings, which it makes as it is imported


def _compiled(function: Any, folder: str, cache: bool, options: dict[str, Any]) -> Any:
    """The function, kept in a folder, or where Numba likes if it has no name."""
    before = config.CACHE_DIR
    config.CACHE_DIR = folder or before
    try:
        return numba.njit(cache=cache, **options)(function)
    finally:
        config.CACHE_DIR = before


def _nothing() -> None: ...


def _find() -> tuple[str, str | None]:
    """(the folder that Numba is set to, "" for none; where it then keeps things, None for nowhere)."""
    ours = folders.folder()
    for folder in ("", *([] if ours is None else [str(ours / "numba")])):
        try:
            return folder, str(_compiled(_nothing, folder, True, {})._cache.cache_path)
        except RuntimeError:  # no locator available
            continue
    return "", None


_FOLDER, PLACE = _find()


def njit(cache: bool, **options: Any) -> Callable[[Any], Any]:
    """As `numba.njit`; with `cache`, what is compiled is kept if there is a place for it."""
    return lambda function: _compiled(function, _FOLDER, cache and PLACE is not None, options)
