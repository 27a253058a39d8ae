"""Elementwise kernels made for one program: neighbours in one pass over memory, without stops between them.

They are written as LLVM's intermediate language, which takes a hundredth of a second to compile, a tenth of what
Numba's front end needs. Shapes and strides are constants in it. Nothing is contracted or reordered, so that the results
are those of the kernels one by one, to the bit: exp and its like, which are not rounded as IEEE 754 says, are written
here for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from tinymaml.kernels import formulas
from tinymaml.kernels.cpu.compiled import functions, object_cache
from tinymaml.kernels.cpu.compiled.vectors import BYTES
from tinymaml.kernels.formulas import Group

_I1, _I8, _I64 = ir.IntType(1), ir.IntType(8), ir.IntType(64)
_REALS = {np.dtype(np.float32): ir.FloatType(), np.dtype(np.float64): ir.DoubleType()}
_TYPES: dict[Any, Any] = {dtype: _REALS.get(dtype) or ir.IntType(8 * dtype.itemsize) for dtype in formulas.KINDS}
_INSTRUCTIONS = ("fabs", "sqrt")
_NARROW = 32  # bytes of a vector where memory is the bound: wider ones are no quicker, and leave more numbers over


class _Writer:
    """Writes formulas as instructions."""

    def __init__(self, b: ir.IRBuilder) -> None:
        self.b = b
        self.calls = False  # whether a function of libm is called, which takes one number at a time
        self.bytes = min(_NARROW, BYTES)  # of a vector

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
        """A function of our own, an instruction, or else libm's."""
        if name in functions.FUNCTIONS:
            self.bytes = BYTES
            return functions.call(self.b, name, *xs)
        kind = xs[0].type
        single = isinstance(kind, ir.FloatType)
        full = f"llvm.{name}.f{32 if single else 64}" if name in _INSTRUCTIONS else name + "f" * single
        self.calls = self.calls or name not in _INSTRUCTIONS
        known = self.b.module.globals.get(full)
        function = known or ir.Function(self.b.module, ir.FunctionType(kind, [kind] * len(xs)), full)
        return self.b.call(function, xs)

    def cast(self, x: ir.Value, dtype: Any) -> ir.Value:
        kind = _TYPES[dtype]
        return x if x.type == kind else self.b.fpext(x, kind) if kind == ir.DoubleType() else self.b.fptrunc(x, kind)


# Loops.


def _counting(
    b: ir.IRBuilder,
    first: ir.Value,
    last: ir.Value,
    body: Callable[[ir.Value], None],
    lanes: Callable[[], int] = lambda: 0,
) -> None:
    """for i in range(first, last): body(i)

    `lanes`, asked when the body is written, says how many entries an innermost loop computes at a time.
    """
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
    again = b.branch(check)
    if wide := lanes():
        again.set_metadata("llvm.loop", _vectorised(b.module, wide))
    b.position_at_end(end)


def _vectorised(module: ir.Module, lanes: int) -> Any:
    """What tells LLVM how many entries of a loop to compute at a time.

    It is not left to choose: its two models of what that costs abort the process where they disagree.
    """
    width = module.add_metadata(["llvm.loop.vectorize.width", ir.Constant(ir.IntType(32), lanes)])
    loop = module.add_metadata([width, ir.Constant(_I64, len(module.metadata))])  # no other loop's
    loop.operands = (loop, width)  # a loop is known by a node that begins with itself
    return loop


def _emit(module: ir.Module, name: str, group: Group) -> None:
    """i64 name(i64 arguments, i64 first, i64 last): entries first ... last - 1 along axis 0."""
    dtypes = group.dtypes
    outs = [dtypes[value] for value in group.results]
    kinds = [*dtypes[: len(group.operands)], *outs]
    places = [operand.strides for operand in group.operands]
    places += [formulas.in_order(group.shape, dtype.itemsize) for dtype in outs]
    axes = formulas.collapsed(group.shape[1:], [steps[1:] for steps in places])
    bytes_ = _I8.as_pointer()

    inner = ir.Function(module, ir.FunctionType(ir.VoidType(), [_I64, _I64] + [bytes_] * len(places)), name + ".loops")
    inner.linkage = "internal"
    for argument in inner.args[2:]:
        argument.add_attribute("noalias")
    b = ir.IRBuilder(inner.append_basic_block("entry"))

    writer = _Writer(b)

    def over(axis: int, at: list[ir.Value]) -> None:
        if axis == len(axes):
            compute(at)
            return
        length, strides = axes[axis]

        def entry(i: ir.Value) -> None:
            over(axis + 1, moved(at, i, strides))

        _counting(b, ir.Constant(_I64, 0), ir.Constant(_I64, length), entry, lambda: lanes(axis, length, strides))

    def lanes(axis: int, length: int, strides: Sequence[int]) -> int:
        """Of a loop over the numbers of an axis: 0 of one with loops inside, 1 where numbers are not neighbours, or go
        through functions one by one."""
        if axis < len(axes) - 1:
            return 0
        neighbours = all(s in (0, dtype.itemsize) for s, dtype in zip(strides, kinds, strict=True))
        most = (
            min(writer.bytes // max(dtype.itemsize for dtype in kinds), length)
            if neighbours and not writer.calls
            else 1
        )
        return 1 << (max(most, 1).bit_length() - 1)

    def moved(at: Sequence[ir.Value], i: ir.Value, strides: Sequence[int]) -> list[ir.Value]:
        return [b.gep(x, [b.mul(i, ir.Constant(_I64, s))]) if s else x for x, s in zip(at, strides, strict=True)]

    def compute(at: Sequence[ir.Value]) -> None:
        values = [
            b.load(b.bitcast(x, _TYPES[dtype].as_pointer()), align=dtype.itemsize)
            for x, dtype in zip(at, dtypes[: len(group.operands)], strict=False)
        ]
        values = formulas.write(writer, group, values)
        for x, value in zip(at[len(group.operands) :], group.results, strict=True):
            result = b.zext(values[value], _I8) if values[value].type == _I1 else values[value]
            b.store(result, b.bitcast(x, result.type.as_pointer()), align=dtypes[value].itemsize)

    along = [steps[0] for steps in places]
    if all(length for length, _ in axes):
        _counting(
            b,
            *inner.args[:2],
            lambda t: over(0, moved(inner.args[2:], t, along)),
            lambda: lanes(-1, group.shape[0], along),
        )
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
