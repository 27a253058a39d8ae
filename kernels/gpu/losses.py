"""Losses and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from tinymaml.kernels.gpu.launch import REAL, Plan, blocks

Arrays = Sequence[Any]

_LABELS = {
    **{f"i{size}": name for size, name in ((1, "signed char"), (2, "short"), (4, "int"), (8, "long long"))},
    **{f"u{size}": f"unsigned {name}" for size, name in ((1, "char"), (2, "short"), (4, "int"), (8, "long long"))},
}

INSTANCES = {
    real: (
        f"mse<{real}>",
        f"scaled_difference<{real}>",
        f"cross_entropy_hessian<{real}>",
        *[
            f"{name}<{real}, {kind}>"
            for name in ("cross_entropy", "cross_entropy_gradient")
            for kind in _LABELS.values()
        ],
    )
    for real in REAL.values()
}


def mse(plan: Plan, outs: Arrays, ins: Arrays) -> None:
    """The mean of (p - t)^2 over all axes but the first."""
    (p, p_step), (t, t_step) = (plan.by_task(x) for x in ins)
    plan.launch("losses", f"mse<{REAL[p.dtype]}>", (len(p),), 256, p, t, outs[0], prod(p.shape[1:]), p_step, t_step)


def scaled_difference(plan: Plan, outs: Arrays, ins: Arrays, scale: float) -> None:
    """scale h (p - t), with one h for each entry of the first axis."""
    (p, p_step), (t, t_step), (h, h_step) = (plan.by_task(x) for x in ins)
    count = prod(p.shape[1:])
    plan.launch(
        "losses", f"scaled_difference<{REAL[p.dtype]}>", (blocks(count, 256), len(p)), 256, p, t, h, outs[0], count,
        p_step, t_step, h_step, p.dtype.type(scale),
    )  # fmt: skip


def _sizes(logits: Any) -> tuple[int, int]:
    """(examples of a task, classes)."""
    return prod(logits.shape[1:-1]), logits.shape[-1]


def cross_entropy(plan: Plan, outs: Arrays, ins: Arrays) -> None:
    """The mean over a task's examples of log sum exp(logits) - the label's logit."""
    (x, x_step), (labels, label_step) = (plan.by_task(y) for y in ins)
    name = f"cross_entropy<{REAL[x.dtype]}, {_LABELS[labels.dtype.str[1:]]}>"
    plan.launch("losses", name, (len(x),), 256, x, labels, outs[0], *_sizes(x), x_step, label_step)


def cross_entropy_gradient(plan: Plan, outs: Arrays, ins: Arrays) -> None:
    """h / N (softmax - onehot)."""
    (x, x_step), (labels, label_step), (h, h_step) = (plan.by_task(y) for y in ins)
    examples, classes = _sizes(x)
    name = f"cross_entropy_gradient<{REAL[x.dtype]}, {_LABELS[labels.dtype.str[1:]]}>"
    plan.launch(
        "losses", name, (blocks(examples, 128), len(x)), 128, x, labels, h, outs[0], examples, classes, x_step,
        label_step, h_step,
    )  # fmt: skip


def cross_entropy_hessian(plan: Plan, outs: Arrays, ins: Arrays) -> None:
    """h / N (p v - p <p, v>) with p the softmax."""
    (x, x_step), (h, h_step), (v, v_step) = (plan.by_task(y) for y in ins)
    examples, classes = _sizes(x)
    plan.launch(
        "losses", f"cross_entropy_hessian<{REAL[x.dtype]}>", (blocks(examples, 128), len(x)), 128, x, h, v, outs[0],
        examples, classes, x_step, h_step, v_step,
    )  # fmt: skip
