"""The two sweeps over the recorded graph. Everything that differentiates is made of them.

Both visit the nodes that lie between some inputs and some outputs, in the order in which they were made or in the
reverse of it. The inputs are taken as independent variables: the sweeps stop there, whatever the inputs were made of
themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

from tinymaml.autodiff.tensor import CONSTANT, OPERATORS, SWEEP, Node, Tensor

Tangent = Tensor | None
_serial = attrgetter("serial")


def pull(outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tangent]) -> list[Tangent]:
    """Reverse mode: carry cotangents of the outputs back to the inputs.

    Returns for every input the sum over the outputs of Jᵀg, recorded; None where no output depends on it.
    """
    total: dict[tuple[Node, int], Tensor] = {}
    add = OPERATORS["add"]

    def collect(tensor: Tensor, cotangent: Tensor) -> None:
        key = (tensor.node, tensor.index)
        total[key] = add(total[key], cotangent) if key in total else cotangent

    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is not None:
            _check("cotangent", output, cotangent)
            collect(output, cotangent)
    nodes, reached = between(outputs, inputs)
    with _order_above(nodes):
        for node in reversed(nodes):
            primitive: Any = node.primitive  # never None: leaves are not between
            if primitive.outputs == 1:
                g: Any = total.pop((node, 0), None)
                missing = g is None
            else:
                g = tuple([total.pop((node, i), None) for i in range(min(primitive.outputs, len(node.outputs)))])
                missing = all(part is None for part in g)
            if missing:
                continue
            wanted = [tensor.node in reached for tensor in node.inputs]
            by_inputs = primitive.vjp(wanted, g, values(node), *node.inputs, **node.static)
            for tensor, want, cotangent in zip(node.inputs, wanted, by_inputs, strict=True):
                if want and cotangent is not None:
                    collect(tensor, cotangent)
    results = [total.get((tensor.node, tensor.index)) for tensor in inputs]
    for tensor, cotangent in zip(inputs, results, strict=True):
        if cotangent is not None:
            _check("cotangent", tensor, cotangent)
    return results


def push(outputs: Sequence[Tensor], inputs: Sequence[Tensor], tangents: Sequence[Tangent]) -> list[Tangent]:
    """Forward mode: carry tangents of the inputs on to the outputs.

    Returns for every output Jv, recorded; None where it depends on no input that has a tangent. The values along the
    way are those recorded already: nothing is computed again.
    """
    known: dict[tuple[Node, int], Tensor] = {}
    for tensor, tangent in zip(inputs, tangents, strict=True):
        if tangent is not None:
            _check("tangent", tensor, tangent)
            known[tensor.node, tensor.index] = tangent
    nodes, _ = between(outputs, inputs)
    with _order_above(nodes):
        for node in nodes:
            ts = [known.get((tensor.node, tensor.index)) for tensor in node.inputs]
            if all([t is None for t in ts]):
                continue
            primitive: Any = node.primitive  # never None: leaves are not between
            result = primitive.jvp(ts, values(node), *node.inputs, **node.static)
            for i, tangent in enumerate(result if type(result) is tuple else (result,)):
                if tangent is not None:
                    known[node, i] = tangent
    return [known.get((tensor.node, tensor.index)) for tensor in outputs]


def between(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[list[Node], set[Node]]:
    """The nodes that the outputs are made of and that depend on an input, oldest first; and the same with the inputs'
    nodes.

    Nothing older than the oldest input is visited, so the cost is that of the part between, however long the graph
    below.
    """
    reached = {tensor.node for tensor in inputs}
    if any([node.root == CONSTANT for node in reached]):
        raise ValueError(
            "an input of a sweep is a constant, of which no history is recorded; make it Tensor(array) first"
        )
    serials = [node.serial for node in reached]
    oldest, youngest = min(serials, default=0), max(serials, default=0)
    seen = set(reached)
    above: list[Node] = []
    stack = [tensor.node for tensor in outputs]
    while stack:
        node = stack.pop()
        # A node whose oldest variable is younger than every input cannot depend on one.
        if node.serial > oldest and node.root <= youngest and node not in seen:
            seen.add(node)
            above.append(node)
            for tensor in node.inputs:
                stack.append(tensor.node)
    above.sort(key=_serial)
    nodes: list[Node] = []
    for node in above:
        for tensor in node.inputs:
            if tensor.node in reached:
                reached.add(node)
                nodes.append(node)
                break
    return nodes, reached


@contextmanager
def _order_above(nodes: Sequence[Node]) -> Iterator[None]:
    """What is recorded meanwhile is of the next order of derivative, for pictures."""
    token = SWEEP.set(max(SWEEP.get(), 1 + max([node.order for node in nodes], default=0)))
    try:
        yield
    finally:
        SWEEP.reset(token)


def values(node: Node) -> Any:
    """What a rule is given as `y`: the node's output, or the tuple of its outputs."""
    if len(node.outputs) == 1:
        return Tensor.of(node)
    return tuple([Tensor.of(node, i) for i in range(len(node.outputs))])


def _check(kind: str, tensor: Tensor, tangent: Tensor) -> None:
    if tensor.shape != tangent.shape or tensor.dtype != tangent.dtype:
        raise ValueError(
            f"a {kind} has the shape and dtype of its tensor: expected {tensor.shape} {tensor.dtype}, "
            f"got {tangent.shape} {tangent.dtype}"
        )
