"""What training iterations that follow each other on a device read and leave behind, without asking the host.

A table has a row for each iteration of a stretch; `slot`, int64 [1], says whose turn it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]


def row(outs: Arrays, ins: Arrays) -> None:
    """The slot's row of a table [S, K]: [K]."""
    table, slot = ins
    outs[0][...] = table[slot[0]]


def note(outs: Arrays, ins: Arrays) -> None:
    """A table [S, F] with the means of F arrays in the slot's row, and the next slot; ins table, slot, the arrays."""
    table, slot, *figures = ins
    outs[0][...] = table
    outs[0][slot[0]] = [x.mean() for x in figures]
    outs[1][...] = slot + 1


def right(outs: Arrays, ins: Arrays) -> None:
    """The share of each task's examples whose largest logit is their label's, [T]; none is, where it is not finite.

    Logits are [T, N, C], labels int64 [T, N].
    """
    logits, labels = ins
    outs[0][...] = ((logits.argmax(-1) == labels) & np.isfinite(logits).all(-1)).mean(-1)
