"""What training iterations that follow each other on a device read and leave behind, without asking the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.kernels.gpu.launch import REAL, Plan

Arrays = Sequence[Any]

INSTANCES = {real: tuple([f"{name}<{real}>" for name in ("row", "note", "right")]) for real in REAL.values()}


def row(plan: Plan, outs: Arrays, ins: Arrays) -> None:
    """The slot's row of a table [S, K]: [K]."""
    table, slot = ins
    plan.launch("training", f"row<{REAL[table.dtype]}>", (1,), 32, plan.in_order(table), slot, *outs, table.shape[1])


def note(plan: Plan, outs: Arrays, ins: Arrays) -> None:
    """A table [S, F] with the means of F arrays in the slot's row, and the next slot; ins table, slot, the arrays."""
    table, slot, *figures = ins
    figures = [plan.in_order(x) for x in figures]
    arrays = plan.upload(np.array([[x.data.ptr, x.size] for x in figures], np.uint64), figures)
    name = f"note<{REAL[table.dtype]}>"
    plan.launch("training", name, (len(figures),), 256, plan.in_order(table), slot, *outs, arrays, len(table))


def right(plan: Plan, outs: Arrays, ins: Arrays) -> None:
    """The share of each task's examples whose largest logit is their label's, [T]; none is, where it is not finite."""
    (logits, logits_step), (labels, labels_step) = (plan.by_task(x) for x in ins)
    name = f"right<{REAL[logits.dtype]}>"
    plan.launch(
        "training", name, (len(logits),), 256, logits, labels, *outs, *logits.shape[1:], logits_step, labels_step
    )
