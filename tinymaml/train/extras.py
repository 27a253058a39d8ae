"""Optional packages, imported when first needed."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any


class MissingExtra(ImportError):
    """A package of an extra is not installed; the message names the extra."""


def require(module: str, extra: str) -> Any:
    """Import a module. Raises MissingExtra, which says how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingExtra(f"{module} is not installed: pip install 'tinymaml[{extra}]'") from error


def require_all(needed: Iterable[tuple[str, str]]) -> None:
    """Import what a command will need, (module, extra) each, before it begins. Raises MissingExtra as `require`."""
    for module, extra in needed:
        require(module, extra)
