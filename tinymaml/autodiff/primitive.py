"""A primitive is declared once: its name, the shapes of its outputs, its kernel and its two derivative rules.

    vjp   carries a cotangent of the outputs back to the inputs (the transposed Jacobian, reverse mode)
    jvp   carries tangents of the inputs on to the outputs (the Jacobian, forward mode)

Both rules are written in ops on tensors, so what they compute is recorded too and can be differentiated again. A
missing cotangent or tangent is `None`, which means zero; it is never an array of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinymaml.autodiff.operators import public_name
from tinymaml.autodiff.tensor import (
    CONSTANT,
    FLOATS,
    NUMBERS,
    Array,
    Node,
    Tensor,
    check_kinds,
    constant,
    is_array,
    joined,
)
from tinymaml.autodiff.tracing import Spec as Spec

Tangent = Tensor | None

REGISTRY: dict[str, Primitive] = {}


@dataclass(frozen=True, eq=False, slots=True)
class Primitive:
    """The declaration of one primitive. Calling it applies it and records a node.

    Attributes:
        name: unique; also the name in error messages and pictures.
        kernel: `kernel(specs, arrays, static) -> arrays`, computes the outputs. See `dispatch`.
        specs: `specs(*arrays, **static) -> [(shape, dtype), ...]`, one an output; raises on shapes that do not fit.
            None for a view, whose kernel needs no memory of its own.
        vjp: `vjp(wanted, g, y, *inputs, **static) -> cotangents`, one an input; only where `wanted` is true is it used.
            `g` and `y` are the cotangent and the value of the output, or tuples if there are several. See `each`.
        jvp: `jvp(tangents, y, *inputs, **static) -> tangent` of the output, or a tuple if there are several.
            Both rules None: the outputs are locally constant (comparisons, indices), and no derivative passes.
        outputs: how many outputs, at most, have derivatives. Those after them are residuals, of which none is ever
            taken.
        residual_inputs: positions at which a floating residual may come in. Its rules must be total in the residual's
            source, which the primitive takes as well; everywhere else a residual raises.
        integer_inputs: positions that take integers or booleans (indices, labels, masks).
    """

    name: str
    kernel: Callable[[Any, Sequence[Array], dict[str, Any]], tuple[Array, ...]]
    specs: Callable[..., Sequence[Spec]] | None
    vjp: Callable[..., Sequence[Tangent]] | None
    jvp: Callable[..., Any] | None
    outputs: int = 1
    residual_inputs: tuple[int, ...] = ()
    integer_inputs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.name in REGISTRY:
            raise ValueError(f"a primitive named {self.name!r} is declared twice")
        REGISTRY[self.name] = self

    def __call__(self, *inputs: Any, **static: Any) -> Any:
        """Apply to tensors, arrays and numbers. Returns a tensor, or a tuple of all outputs if there are several."""
        tensors = inputs if _ready(inputs) else lift(self, inputs)
        arrays = [tensor.data for tensor in tensors]
        specs = None if self.specs is None else self.specs(*arrays, **static)
        outputs = self.kernel(specs, arrays, static)
        root = CONSTANT
        if self.jvp is not None:
            for tensor in tensors:
                if tensor.node.root < root:
                    root = tensor.node.root
        node = Node(self, () if root == CONSTANT else tensors, static, outputs, root)
        if len(outputs) == 1:
            return Tensor.of(node)
        return tuple([Tensor.of(node, i) for i in range(len(outputs))])


def _ready(inputs: Sequence[Any]) -> bool:
    """Whether all inputs are plain tensors of one floating dtype: the usual case, where `lift` has nothing to do."""
    dtype = None
    for x in inputs:
        if type(x) is not Tensor or x.index:
            return False
        if x.data.dtype is not dtype:
            if dtype is not None or x.data.dtype not in FLOATS:
                return False
            dtype = x.data.dtype
    return True


def lift(primitive: Primitive, inputs: Sequence[Any]) -> tuple[Tensor, ...]:
    """The inputs as tensors, all of one floating dtype where the primitive is differentiable by them."""
    dtype = None
    tensors: list[Any] = []
    for position, value in enumerate(inputs):
        if type(value) is not Tensor:
            if is_array(value):
                value = constant(value)
            elif type(value) in NUMBERS or type(value := joined(value)) is not Tensor:
                tensors.append(value)  # a number: it waits for the others' dtype
                continue
        node = value.node
        if position not in primitive.integer_inputs:
            this = value.dtype
            if dtype is None:
                if this not in FLOATS and primitive.jvp is not None:
                    raise TypeError(f"{_input(primitive, position)} is {this}, expected float32 or float64")
                dtype = this
            elif this != dtype and primitive.jvp is not None:
                raise TypeError(
                    f"{_input(primitive, position)} is {this} and another is {dtype}; "
                    "dtypes are never mixed or changed silently: cast one with .astype()"
                )
        if value.index and node.primitive is not None and value.index >= node.primitive.outputs:
            value = _residual(primitive, position, value)
        tensors.append(value)
    return tuple(
        [value if type(value) is Tensor else _number(primitive, i, value, dtype) for i, value in enumerate(tensors)]
    )


def _number(primitive: Primitive, position: int, value: Any, dtype: Any) -> Tensor:
    if type(value) not in NUMBERS:
        check_kinds(value)
    takes_integers = position in primitive.integer_inputs
    try:
        result = None if value is None else constant(value, dtype if dtype in FLOATS and not takes_integers else None)
    except (TypeError, ValueError):
        result = None
    if result is None or result.dtype.kind not in "fiub":
        kind = type(value).__name__
        raise TypeError(f"{_input(primitive, position)} is a {kind}, expected a tensor, an array or a number")
    if result.dtype not in FLOATS and primitive.jvp is not None and not takes_integers:
        raise TypeError(f"{_input(primitive, position)} is {result.dtype}, expected float32 or float64")
    return result


def _input(primitive: Primitive, position: int) -> str:
    """An input in an error: `sum: an input`, by the function that was called, whose inputs have other positions, or
    `add: input 1`."""
    name = public_name(primitive.name)
    return f"{name}: input {position}" if name == primitive.name else f"{name}: an input"


def _residual(primitive: Primitive, position: int, value: Tensor) -> Tensor:
    """Integers and masks are locally constant, and free to use; a floating residual would lose its derivative."""
    if value.dtype not in FLOATS:
        return constant(value.data)
    if position not in primitive.residual_inputs:
        owner = value.node.primitive.name  # type: ignore[union-attr]  # residuals have a primitive
        raise TypeError(f"{_input(primitive, position)} is a residual of {owner}, whose derivatives would be lost here")
    return value


def each(*rules: Callable[..., Tangent] | None) -> Callable[..., Sequence[Tangent]]:
    """A vjp rule from one function an input, `rule(g, y, *inputs, **static)`, or None where it has no derivative."""

    def vjp(wanted: Sequence[bool], *args: Any, **static: Any) -> Sequence[Tangent]:
        return [
            rule(*args, **static) if want and rule is not None else None
            for want, rule in zip(wanted, rules, strict=False)
        ]

    return vjp
