"""Elementwise kernels made for one program: neighbours in one pass over memory, without stops between them.

They are written as LLVM's intermediate language, which takes a hundredth of a second to compile, a tenth of what
Numba's front end needs. Shapes and strides are constants in it. Nothing is contracted or reordered, so that the results
are those of the kernels one by one, to the bit; only exp and its like are libm's here and NumPy's there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from tinymaml.kernels import formulas
from tinymaml.kernels.cpu.compiled import object_cache
from tinymaml.kernels.formulas import Group

_I1, _I8, _I64 = ir.IntType(1), ir.IntType(8), ir.IntType(64)
_REALS = {np.dtype(np.float32): ir.FloatType(), np.dtype(np.float64): ir.DoubleType()}
_TYPES: dict[Any, Any] = {dtype: _REALS.get(dtype) or ir.IntType(8 * dtype.itemsize) for dtype in formulas.KINDS}
_INSTRUCTIONS = ("fabs", "sqrt")


class _Writer:
    """Writes formulas as instructions."""

    def __init__(self, b: ir.IRBuilder) -> None:
        self.b = b

    def number(self, value: float, like: ir.Value) -> ir.Value:
        return ir.Constant(like.type, value)

    def arithmetic(self, sign: str, x: ir.Value, y: ir.Value) -> ir.Value:
        return {"+": self.b.fadd, "-": self.b.fsub, "*": self.b.fmul, "/": self.b.fdiv}[sign](x, y)

    def negative(self, x: ir.Value) -> ir.Value:
        return self.b.fneg(x)

    def compare(self, sign: str, x: ir.Value, y: ir.Value, otherwise: bool = False) -> ir.Value:
        return (self.b.fcmp_unordered if otherwise else self.b.fcmp_ordered)(sign, x, y)

    def select(self, condition: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.b.select(condition, x, y)

    def truth(self, x: ir.Value) -> ir.Value:
        return x if x.type == _I1 else self.b.icmp_signed("!=", x, ir.Constant(x.type, 0))

    def call(self, name: str, *xs: ir.Value) -> ir.Value:
        """A function of libm, or an instruction of that name."""
        kind = xs[0].type
        single = isinstance(kind, ir.FloatType)
        full = f"llvm.{name}.f{32 if single else 64}" if name in _INSTRUCTIONS else name + "f" * single
        known = self.b.module.globals.get(full)
        function = known or ir.Function(self.b.module, ir.FunctionType(kind, [kind] * len(xs)), full)
        return self.b.call(function, xs)

    def cast(self, x: ir.Value, dtype: Any) -> ir.Value:
        kind = _TYPES[dtype]
        return x if x.type == kind else self.b.fpext(x, kind) if kind == ir.DoubleType() else self.b.fptrunc(x, kind)


# Loops.


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
    dtypes = group.dtypes
    outs = [dtypes[value] for value in group.results]
    places = [operand.strides for operand in group.operands]
    places += [formulas.in_order(group.shape, dtype.itemsize) for dtype in outs]
    axes = formulas.collapsed(group.shape[1:], [own[1:] for own in places])
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
            b.load(b.bitcast(x, _TYPES[dtype].as_pointer()), align=dtype.itemsize)
            for x, dtype in zip(at, dtypes[: len(group.operands)], strict=False)
        ]
        values = formulas.write(_Writer(b), group, values)
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


class Function(NamedTuple):
    """i64 part(i64 arguments, i64 first, i64 last) in memory, for as long as `code` is held."""

    address: int
    code: object_cache.Code


def compile(groups: Sequence[Group]) -> list[Function]:  # noqa: A001
    """For each group a function i64 part(i64 arguments, i64 first, i64 last), which computes entries first ... last - 1
    along axis 0 and returns 0.

    `arguments` is the address of the addresses of the operands' first numbers, and then of the results', which do not
    overlap with anything else.
    """
    module = ir.Module("fused")
    names: dict[Group, str] = {}
    for group in groups:
        if group not in names:
            names[group] = f"group{len(names)}"
            _emit(module, names[group], group)
    code = object_cache.load(str(module), list(names.values()))
    return [Function(code.addresses[names[group]], code) for group in groups]
