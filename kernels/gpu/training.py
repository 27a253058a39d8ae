"""The figures that training iterations on a device leave behind, without asking the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.kernels.gpu.launch import REAL, Plan

Arrays = Sequence[Any]

INSTANCES = {real: (f"write_figures<{real}>", f"share_of_correct<{real}>") for real in REAL.values()}


def write_figures(plan: Plan, outs: Arrays, ins: Arrays) -> None:
    """The table [S, F] with the means of F arrays in the row, and the next row; ins the table, the row, the arrays."""
    table, row, *figures = ins
    figures = [plan.in_order(x) for x in figures]
    arrays = plan.upload(np.array([[x.data.ptr, x.size] for x in figures], np.uint64), figures)
    name = f"write_figures<{REAL[table.dtype]}>"
    plan.launch("training", name, (len(figures),), 256, plan.in_order(table), row, *outs, arrays, len(table))


def share_of_correct(plan: Plan, outs: Arrays, ins: Arrays) -> None:
    """The share of each task's examples whose largest logit is their label's, [T]; none is, where it is not finite."""
    (logits, logits_step), (labels, labels_step) = (plan.by_task(x) for x in ins)
    name = f"share_of_correct<{REAL[logits.dtype]}>"
    plan.launch(
        "training", name, (len(logits),), 256, logits, labels, *outs, *logits.shape[1:], logits_step, labels_step
    )
