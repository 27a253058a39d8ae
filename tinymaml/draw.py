"""A picture of the recorded graph, as Graphviz dot text."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(result: Any, path: str | Path | None = None) -> str:
    raise NotImplementedError
