"""Elementwise kernels made for one program: neighbours in one pass over memory, without stops between them.

They are written as LLVM's intermediate language, which takes a hundredth of a second to compile, a tenth of what
Numba's front end needs. Shapes and strides are constants in it. Nothing is contracted or reordered, so that the results
are those of the kernels one by one, to the bit; only exp and its like are libm's here and NumPy's there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from tinymaml.kernels.cpu.compiled import object_cache

_I1, _I8, _I64 = ir.IntType(1), ir.IntType(8), ir.IntType(64)
_KINDS: dict[Any, Any] = {
    np.dtype(np.float32): ir.FloatType(),
    np.dtype(np.float64): ir.DoubleType(),
    np.dtype(np.bool_): _I8,
    **{np.dtype(f"i{size}"): ir.IntType(8 * size) for size in (1, 2, 4, 8)},
    **{np.dtype(f"u{size}"): ir.IntType(8 * size) for size in (1, 2, 4, 8)},
}
_FLOATS = (ir.FloatType(), ir.DoubleType())


class Operand(NamedTuple):
    """An array that a group reads, with the bytes to the next entry along each axis of its shape, 0 where broadcast."""

    dtype: np.dtype[Any]
    strides: tuple[int, ...]


class Step(NamedTuple):
    """An elementwise kernel by its name. Its operands are values: first come the group's operands, then the results of
    the steps before."""

    name: str
    operands: tuple[int, ...]
    dtype: np.dtype[Any]  # of the result
    static: tuple[tuple[str, Any], ...] = ()


class Group(NamedTuple):
    """Steps over one shape. The results that are kept are written in C order; how long axis 0 is does not matter."""

    shape: tuple[int, ...]
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    results: tuple[int, ...]  # values


# What the kernels of kernels/cpu/elementwise.py compute of one number: formula(builder, values) -> value.

Formula = Callable[..., ir.Value]


def _number(value: float, like: ir.Value) -> ir.Constant:
    return ir.Constant(like.type, value)


def _call(name: str, b: ir.IRBuilder, *xs: ir.Value) -> ir.Value:
    """A function of libm, or an instruction of that name."""
    kind = xs[0].type
    single = isinstance(kind, ir.FloatType)
    full = f"{name}.f{32 if single else 64}" if name.startswith("llvm.") else name + "f" * single
    known = b.module.globals.get(full)
    function = known or ir.Function(b.module, ir.FunctionType(kind, [kind] * len(xs)), full)
    return b.call(function, xs)


def _binary(name: str) -> Formula:
    return lambda b, x, y: getattr(b, name)(x, y)


def _compare(sign: str, ordered: bool = True) -> Formula:
    return lambda b, x, y: (b.fcmp_ordered if ordered else b.fcmp_unordered)(sign, x, y)


def _truth(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return x if x.type == _I1 else b.icmp_signed("!=", x, ir.Constant(x.type, 0))


def _sign(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    one, zero = _number(1, x), _number(0, x)
    magnitude = b.select(
        b.fcmp_ordered(">", x, zero), one, b.select(b.fcmp_ordered("<", x, zero), _number(-1, x), zero)
    )
    return b.select(b.fcmp_unordered("uno", x, x), x, magnitude)


def _small(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """exp(-|x|), which does not overflow."""
    return _call("exp", b, b.fneg(_call("llvm.fabs", b, x)))


def _sigmoid(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    small, one = _small(b, x), _number(1, x)
    return b.fdiv(b.select(b.fcmp_ordered(">=", x, _number(0, x)), one, small), b.fadd(one, small))


def _softplus(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.fadd(_relu(b, x), _call("log1p", b, _small(b, x)))


def _relu(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.select(b.fcmp_unordered(">", x, _number(0, x)), x, _number(0, x))  # what is not a number stays


def _power_of(b: ir.IRBuilder, x: ir.Value, exponent: float) -> ir.Value:
    if exponent == 2:
        return b.fmul(x, x)
    if exponent == -1:
        return b.fdiv(_number(1, x), x)
    return _call("llvm.sqrt", b, x) if exponent == 0.5 else _call("pow", b, x, _number(exponent, x))


def _astype(b: ir.IRBuilder, x: ir.Value, dtype: Any) -> ir.Value:
    kind = _KINDS[np.dtype(dtype)]
    return x if x.type == kind else b.fpext(x, kind) if kind == ir.DoubleType() else b.fptrunc(x, kind)


_FORMULAS: dict[str, Formula] = {
    "add": _binary("fadd"),
    "subtract": _binary("fsub"),
    "multiply": _binary("fmul"),
    "divide": _binary("fdiv"),
    "negative": lambda b, x: b.fneg(x),
    "abs": partial(_call, "llvm.fabs"),
    "sqrt": partial(_call, "llvm.sqrt"),
    **{name: partial(_call, name) for name in ("exp", "expm1", "log", "log1p", "sin", "cos", "tanh")},
    "power": partial(_call, "pow"),
    "power_of": _power_of,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "sign": _sign,
    "greater": _compare(">"),
    "greater_equal": _compare(">="),
    "less": _compare("<"),
    "less_equal": _compare("<="),
    "equal": _compare("=="),
    "not_equal": _compare("!=", ordered=False),
    "relu": _relu,
    "gate": lambda b, g, y: b.select(b.fcmp_ordered(">", y, _number(0, y)), g, _number(0, g)),
    "where": lambda b, condition, x, y: b.select(_truth(b, condition), x, y),
    "descend": lambda b, x, rate, g: b.fsub(x, b.fmul(rate, g)),
    "copy": lambda b, x: x,
    "astype": _astype,
}


def supported(name: str, dtypes: Sequence[Any]) -> bool:
    """Whether there is a formula for the kernel on operands of these dtypes."""
    if name not in _FORMULAS or any(dtype not in _KINDS for dtype in dtypes):
        return False
    numbers = dtypes[1:] if name == "where" else () if name == "copy" else dtypes
    return all(_KINDS[dtype] in _FLOATS for dtype in numbers) and len({*numbers}) <= 1 + (name == "astype")


# Loops.


def _axes(group: Group, places: Sequence[tuple[int, ...]]) -> list[tuple[int, list[int]]]:
    """(length, bytes to the next entry of each array) of the axes but the first, neighbours as one if they can be."""
    found: list[tuple[int, list[int]]] = []
    for axis in range(len(group.shape) - 1, 0, -1):
        length, strides = group.shape[axis], [own[axis] for own in places]
        if length == 1:
            continue
        if found and all(s == found[-1][0] * inner for s, inner in zip(strides, found[-1][1], strict=True)):
            found[-1] = (found[-1][0] * length, found[-1][1])
        else:
            found.append((length, strides))
    return found[::-1]


def _strides(shape: Sequence[int], size: int) -> tuple[int, ...]:
    """Of an array in C order."""
    return tuple([size * int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape))])


def _counting(b: ir.IRBuilder, first: ir.Value, last: ir.Value, body: Callable[[ir.Value], None]) -> None:
    """for i in range(first, last): body(i)"""
    before, check = b.block, b.append_basic_block("check")
    inside, end = b.append_basic_block("body"), b.append_basic_block("end")
    b.branch(check)
    b.position_at_end(check)
    i = b.phi(_I64)
    b.cbranch(b.icmp_signed("<", i, last), inside, end)
    b.position_at_end(inside)
    body(i)
    i.add_incoming(first, before)
    i.add_incoming(b.add(i, ir.Constant(_I64, 1), flags=["nsw", "nuw"]), b.block)
    b.branch(check)
    b.position_at_end(end)


def _emit(module: ir.Module, name: str, group: Group) -> None:
    """i64 name(i64 arguments, i64 first, i64 last): entries first ... last - 1 along axis 0."""
    dtypes = [operand.dtype for operand in group.operands] + [step.dtype for step in group.steps]
    outs = [dtypes[value] for value in group.results]
    places = [operand.strides for operand in group.operands]
    places += [_strides(group.shape, dtype.itemsize) for dtype in outs]
    axes = _axes(group, places)
    bytes_ = _I8.as_pointer()

    inner = ir.Function(module, ir.FunctionType(ir.VoidType(), [_I64, _I64] + [bytes_] * len(places)), name + ".loops")
    inner.linkage = "internal"
    for argument in inner.args[2:]:
        argument.add_attribute("noalias")
    b = ir.IRBuilder(inner.append_basic_block("entry"))

    def over(axis: int, at: list[ir.Value]) -> None:
        if axis == len(axes):
            compute(at)
            return
        length, strides = axes[axis]
        _counting(b, ir.Constant(_I64, 0), ir.Constant(_I64, length), lambda i: over(axis + 1, moved(at, i, strides)))

    def moved(at: Sequence[ir.Value], i: ir.Value, strides: Sequence[int]) -> list[ir.Value]:
        return [b.gep(x, [b.mul(i, ir.Constant(_I64, s))]) if s else x for x, s in zip(at, strides, strict=True)]

    def compute(at: Sequence[ir.Value]) -> None:
        values = [
            b.load(b.bitcast(x, _KINDS[dtype].as_pointer()), align=dtype.itemsize)
            for x, dtype in zip(at, dtypes[: len(group.operands)], strict=False)
        ]
        for step in group.steps:
            values.append(_FORMULAS[step.name](b, *[values[i] for i in step.operands], **dict(step.static)))
        for x, value in zip(at[len(group.operands) :], group.results, strict=True):
            found = b.zext(values[value], _I8) if values[value].type == _I1 else values[value]
            b.store(found, b.bitcast(x, found.type.as_pointer()), align=dtypes[value].itemsize)

    if all(length for length, _ in axes):
        _counting(b, *inner.args[:2], lambda t: over(0, moved(inner.args[2:], t, [own[0] for own in places])))
    b.ret_void()

    part = ir.Function(module, ir.FunctionType(_I64, [_I64] * 3), name)
    b = ir.IRBuilder(part.append_basic_block("entry"))
    words = b.inttoptr(part.args[0], bytes_.as_pointer())
    pointers = [b.load(b.gep(words, [ir.Constant(_I64, i)])) for i in range(len(places))]
    b.call(inner, [*part.args[1:], *pointers])
    b.ret(ir.Constant(_I64, 0))


def compile(groups: Sequence[Group]) -> list[int]:  # noqa: A001
    """The addresses of functions i64 part(i64 arguments, i64 first, i64 last), which compute entries first ... last - 1
    along axis 0 and return 0.

    `arguments` is the address of the addresses of the operands' first numbers, and then of the results', which do not
    overlap with anything else.
    """
    module = ir.Module("fused")
    names: dict[Group, str] = {}
    for group in groups:
        if group not in names:
            names[group] = f"group{len(names)}"
            _emit(module, names[group], group)
    addresses = object_cache.load(str(module), list(names.values()))
    return [addresses[names[group]] for group in groups]
