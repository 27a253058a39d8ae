"""A launch over many arrays: a table of their addresses, and which blocks work on which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.kernels.gpu.launch import Plan, blocks

BLOCK = 256


def launch(plan: Plan, family: str, name: str, rows: Sequence[Sequence[Any]], *arguments: Any) -> None:
    """A kernel on rows of arrays of one size each; it gets their addresses and size, `starts` and how many rows."""
    rows = [row for row in rows if row[0].size]
    table = np.array([[*[x.data.ptr for x in row], row[0].size] for row in rows], np.uint64)
    starts = np.cumsum([0, *[blocks(row[0].size, BLOCK) for row in rows]], dtype=np.int32)
    if rows:
        held = plan.upload(table, [x for row in rows for x in row])
        plan.launch(family, name, (int(starts[-1]),), BLOCK, held, plan.upload(starts), len(rows), *arguments)
