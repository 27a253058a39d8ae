"""Optional packages, imported when first needed, or looked for before a command begins."""

from __future__ import annotations

from collections.abc import Iterable

from tinymaml.tasks.extras import MissingExtra, require

__all__ = ["MissingExtra", "require", "require_all"]


def require_all(needed: Iterable[tuple[str, str]]) -> None:
    """Import what a command will need, (module, extra) each. Raises MissingExtra, which says how to get it."""
    for module, extra in needed:
        require(module, extra)
