"""The figures that training iterations on a device leave behind, without asking the host.

A table of figures has a row for each iteration; `row`, int64 [1], is that of the one that runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]


def write_figures(outs: Arrays, ins: Arrays) -> None:
    """The table [S, F] with the means of F arrays in the row, and the next row; ins the table, the row, the arrays."""
    table, row, *figures = ins
    outs[0][...] = table
    outs[0][row[0]] = [x.mean() for x in figures]
    outs[1][...] = row + 1


def share_of_correct(outs: Arrays, ins: Arrays) -> None:
    """The share of each task's examples whose largest logit is their label's, [T]; none is, where it is not finite.

    Logits are [T, N, C], labels int64 [T, N].
    """
    logits, labels = ins
    outs[0][...] = ((logits.argmax(-1) == labels) & np.isfinite(logits).all(-1)).mean(-1)
