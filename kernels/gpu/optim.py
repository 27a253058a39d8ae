"""Optimisers' updates: what depends on the iteration, and one launch over all parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymaml.kernels.gpu import many
from tinymaml.kernels.gpu.launch import REAL, Plan

Arrays = Sequence[Any]

INSTANCES = {"float": ("adam<float>",), "double": ("adam<double>", "next_iteration<double>", "bias_correction<double>")}


def next_iteration(plan: Plan, outs: Arrays, ins: Arrays) -> None:
    """The iteration after this one, int64, and this one as float64."""
    plan.launch("optim", "next_iteration<double>", (1,), 1, *outs, *ins)


def bias_correction(plan: Plan, outs: Arrays, ins: Arrays, beta1: float, beta2: float) -> None:
    """Adam's rate / (1 - beta1^t) and 1 / (1 - beta2^t), float64 [2], of iteration t - 1 and the rate, float64."""
    betas = map(np.float64, (beta1, beta2))
    plan.launch("optim", "bias_correction<double>", (1,), 1, *outs, *ins, *betas)


def adam(plan: Plan, outs: Arrays, ins: Arrays, beta1: float, beta2: float, epsilon: float) -> None:
    """Parameters and both moments after a step: outs are x', m', v' of each; ins x, g, m, v of each, and then `scales`,
    which are what `bias_correction` gives.
    """
    *ins, scales = ins
    rows = [
        [*outs[3 * i : 3 * i + 3], *[plan.in_order(x) for x in ins[4 * i : 4 * i + 4]]] for i in range(len(outs) // 3)
    ]
    dtype = outs[0].dtype
    many.launch(plan, "optim", f"adam<{REAL[dtype]}>", rows, scales, *map(dtype.type, (beta1, beta2, epsilon)))
