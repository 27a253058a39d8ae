"""Optional packages of the extras, imported when first needed, or checked for before a command begins."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any


class MissingExtra(ImportError):
    """A package of an extra is not installed; the message names the extra."""


def require(module: str, extra: str = "data") -> Any:
    """Import a module of an extra. Raises MissingExtra, which says how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtra(f"{package} is not installed: pip install 'tinymaml[{extra}]'") from error


def require_all(modules: Iterable[tuple[str, str]]) -> None:
    """Import what a command will need, (module, extra) each. Raises MissingExtra, which says how to get it."""
    for module, extra in modules:
        require(module, extra)
