"""Losses and their gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]


def mse(outs: Arrays, ins: Arrays) -> None:
    """The mean of (p - t)^2 over all axes but the first."""
    p, t = ins
    difference = (p - t).reshape(len(p), math.prod(p.shape[1:]))
    np.divide(np.einsum("tn,tn->t", difference, difference), difference.shape[1], out=outs[0])


def scaled_difference(outs: Arrays, ins: Arrays, scale: float) -> None:
    """scale h (p - t), with one h for each entry of the first axis."""
    p, t, h = ins
    np.subtract(p, t, out=outs[0])
    np.multiply(outs[0], (h * h.dtype.type(scale)).reshape(-1, *[1] * (p.ndim - 1)), out=outs[0])


def _softmax(logits: Any) -> Any:
    """The largest is taken out before exponentials are, so that logits may be of any size."""
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _per_example(h: Any, logits: Any) -> Any:
    """h over the number of examples, with as many axes as the logits."""
    count = math.prod(logits.shape[1:-1])
    return (h / h.dtype.type(count)).reshape(-1, *[1] * (logits.ndim - 1))


def cross_entropy(outs: Arrays, ins: Arrays) -> None:
    """The mean over a task's examples of log sum exp(logits) - the label's logit."""
    logits, labels = ins
    top = logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(logits, labels[..., None], -1) - top
    losses = np.log(np.exp(logits - top).sum(-1)) - chosen[..., 0]
    np.mean(losses.reshape(len(logits), math.prod(labels.shape[1:])), 1, out=outs[0])


def cross_entropy_gradient(outs: Arrays, ins: Arrays) -> None:
    """h / N (softmax - onehot)."""
    logits, labels, h = ins
    onehot = labels[..., None] == np.arange(logits.shape[-1])
    np.multiply(_softmax(logits) - onehot, _per_example(h, logits), out=outs[0])


def cross_entropy_hessian(outs: Arrays, ins: Arrays) -> None:
    """h / N (p v - p <p, v>) with p the softmax."""
    logits, h, v = ins
    p = _softmax(logits)
    np.multiply(p * (v - (p * v).sum(-1, keepdims=True)), _per_example(h, logits), out=outs[0])
