"""Einstein's summation, made of products of matrices."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from tinymaml.autodiff.tensor import Tensor, as_tensor
from tinymaml.ops.elementwise import multiply
from tinymaml.ops.linear import linear
from tinymaml.ops.reduce import sum as sum_over
from tinymaml.ops.shape import broadcast_to, reshape, transpose


def einsum(subscripts: str, *operands: Any) -> Tensor:
    """Einstein's summation as `numpy.einsum`, "tnd,tdk->tnk": products over labels that come again, sums over those
    that are not in the result.

    Operands are multiplied from left to right; what two of them have in common and nothing else needs is summed by one
    product of matrices. An axis of length 1, such as the task axis of shared weights, broadcasts.

    Raises:
        ValueError: no "->" and what comes out, a label twice in an operand (a diagonal) or in the result, a label of
            the result that no operand has, "...", or shapes that do not fit.
    """
    tensors = [as_tensor(x) for x in operands]
    inputs, output = _parsed(subscripts, tensors)
    labels, result = inputs[0], tensors[0]
    for k in range(1, len(tensors)):
        needed = {*output, *"".join(inputs[k + 1 :])}
        labels, result = _product(labels, result, inputs[k], tensors[k], needed)
    labels, result = _without(labels, result, output)
    return result if labels == output else transpose(result, [labels.index(label) for label in output])


def _parsed(subscripts: str, tensors: Sequence[Tensor]) -> tuple[list[str], str]:
    """The labels of each operand and of the result."""
    before, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = before.split(",")
    if not arrow:
        raise ValueError(f"einsum: {subscripts!r} does not say what comes out: write {subscripts}->")
    if len(inputs) != len(tensors):
        raise ValueError(f"einsum: {subscripts!r} is for {len(inputs)} operands, got {len(tensors)}")
    lengths: dict[str, int] = {}
    for labels in (*inputs, output):
        if not all(label.isalpha() for label in labels) or len(set(labels)) != len(labels):
            raise ValueError(f"einsum: each label must be a letter, once in an operand, got {labels!r}")
    for labels, x in zip(inputs, tensors, strict=True):
        if len(labels) != x.ndim:
            raise ValueError(f"einsum: {labels!r} names {len(labels)} axes of a tensor of shape {x.shape}")
        for label, n in zip(labels, x.shape, strict=True):
            known = lengths.get(label, 1)
            if 1 not in (n, known) and n != known:
                raise ValueError(f"einsum: axis {label!r} has lengths {known} and {n} in {subscripts!r}")
            lengths[label] = n if known == 1 else known
    if missing := [label for label in output if label not in lengths]:
        raise ValueError(f"einsum: no operand has the axis {missing[0]!r} of the result in {subscripts!r}")
    return inputs, output


def _without(labels: str, x: Tensor, needed: Collection[str]) -> tuple[str, Tensor]:
    """Summed over the axes whose labels are not needed."""
    gone = [i for i, label in enumerate(labels) if label not in needed]
    return "".join(label for label in labels if label in needed), sum_over(x, gone) if gone else x


def _product(a_labels: str, a: Tensor, b_labels: str, b: Tensor, needed: set[str]) -> tuple[str, Tensor]:
    """Two operands as one, summed over what is not needed behind them."""
    a_labels, a = _without(a_labels, a, needed | set(b_labels))
    b_labels, b = _without(b_labels, b, needed | set(a_labels))
    batch = "".join(label for label in a_labels if label in b_labels and label in needed)
    summed = "".join(label for label in a_labels if label in b_labels and label not in needed)
    rows = "".join(label for label in a_labels if label not in b_labels)
    columns = "".join(label for label in b_labels if label not in a_labels)
    a = transpose(a, [a_labels.index(label) for label in batch + rows + summed])
    b = transpose(b, [b_labels.index(label) for label in batch + columns + summed])
    a_sizes = [a.shape[: len(batch)], a.shape[len(batch) : a.ndim - len(summed)], a.shape[a.ndim - len(summed) :]]
    b_sizes = [b.shape[: len(batch)], b.shape[len(batch) : b.ndim - len(summed)], b.shape[b.ndim - len(summed) :]]
    if not summed or not (rows or columns):  # nothing that a product of matrices would save
        a = reshape(a, (*a_sizes[0], *a_sizes[1], *[1] * len(columns), *a_sizes[2]))
        b = reshape(b, (*b_sizes[0], *[1] * len(rows), *b_sizes[1], *b_sizes[2]))
        both = multiply(a, b)
        return batch + rows + columns, sum_over(both, range(both.ndim - len(summed), both.ndim)) if summed else both
    if a_sizes[2] != b_sizes[2]:
        common = [m if n == 1 else n for n, m in zip(a_sizes[2], b_sizes[2], strict=True)]
        a = broadcast_to(a, (*a_sizes[0], *a_sizes[1], *common))
        b = broadcast_to(b, (*b_sizes[0], *b_sizes[1], *common))
    else:
        common = list(a_sizes[2])
    together = math.prod(common)
    a = reshape(a, (*a_sizes[0], math.prod(a_sizes[1]), together))
    b = reshape(b, (*b_sizes[0], math.prod(b_sizes[1]), together))
    result = linear(a, b, tb=True)
    return batch + rows + columns, reshape(result, (*result.shape[: len(batch)], *a_sizes[1], *b_sizes[1]))
