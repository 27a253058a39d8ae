"""A pass over rows of numbers, as an intrinsic: vectors run along the rows, sums down them stay in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinymaml.kernels.cpu.compiled.vectors import BYTES, I64, Emitter, expect, loop

WIDEST = 2  # vectors at a time: the sums and coefficients of more would not stay in registers
NEAR = 16  # rows at a time: memory is read nearly in order, and sums lose less

Values = Sequence[ir.Value]
Body = Callable[[Emitter, Values, Values, Values], tuple[Values, Values]]


def row_pass(inputs: int, outputs: int, coefficients: int, sums: int, body: Body) -> Any:
    """An intrinsic pass(zero, rows, wide, arrays, coefficients, sums) that runs `body` on all vectors of all rows.

    `body(e, inputs, coefficients, sums)` returns (outputs, sums). `arrays` is the tuple of the addresses of the inputs
    and then of the outputs, each of `rows` rows of `wide` numbers; `coefficients` that of one row each for all of them;
    `sums` that of a row for each sum, which is added to. `zero` only gives the type.
    """

    @intrinsic
    def run(context: Any, zero: Any, rows: Any, wide: Any, arrays: Any, coefficients_at: Any, sums_at: Any) -> Any:
        kind = zero
        signature = types.void(kind, types.intp, types.intp, arrays, types.intp, types.intp)

        def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
            _, rows, wide, arrays, *fixed = args
            moving = [b.extract_value(arrays, i) for i in range(inputs + outputs)]
            vectors = _over(b, wide, BYTES * 8 // kind.bitwidth)
            tail = b.sub(wide, b.mul(b.sub(vectors, ir.Constant(I64, 1)), ir.Constant(I64, BYTES * 8 // kind.bitwidth)))
            e = Emitter(b, kind, tail)
            step = b.mul(wide, e.number(e.size))

            def over_groups(i: ir.Value, left: ir.Value) -> Values:
                here = b.select(b.icmp_signed("<", left, e.number(NEAR)), left, e.number(NEAR))
                skip = b.mul(i, b.mul(step, e.number(NEAR)))
                _strips(e, vectors, tail, lambda width, masked, at: emit(
                    e, width, masked, here, step, [b.add(b.add(x, skip), at) for x in moving],
                    [b.add(x, at) for x in fixed],
                ))  # fmt: skip
                return [b.sub(left, e.number(NEAR))]

            loop(b, _over(b, rows, NEAR), [rows], over_groups)
            return cgctx.get_dummy_value()

        return signature, codegen

    def emit(
        e: Emitter, width: int, masked: bool, rows: ir.Value, step: ir.Value, moving: Values, fixed: Values
    ) -> None:
        columns = [(v, masked and v == width - 1) for v in range(width)]
        known = [[e.load(e.row(fixed[0], step, k), v, last) for k in range(coefficients)] for v, last in columns]
        ahead = e.builder.mul(step, e.number(NEAR))
        places = [(e.row(fixed[1], step, k), v, last) for v, last in columns for k in range(sums)]

        def over_rows(i: ir.Value, *state: ir.Value) -> Values:
            at, totals = state[: len(moving)], state[len(moving) :]
            new: list[ir.Value] = []
            for x in at:  # the same place of the next rows: too far ahead for the processor to guess
                for v in range(width):
                    expect(e.builder, e.add(e.add(x, ahead), v * BYTES))
            for v, last in columns:
                values = [e.load(x, v, last) for x in at[:inputs]]
                results, new_sums = body(e, values, known[v], totals[v * sums : (v + 1) * sums])
                for value, x in zip(results, at[inputs:], strict=True):
                    e.store(value, x, v, last)
                new += new_sums
            return [*[e.builder.add(x, step) for x in at], *new]

        totals = loop(e.builder, rows, [*moving, *[e.zero] * len(places)], over_rows)[len(moving) :]
        for value, place in zip(totals, places, strict=True):
            e.store(e.builder.fadd(value, e.load(*place)), *place)

    return run


def _over(b: ir.IRBuilder, n: ir.Value, by: int) -> ir.Value:
    """n / by, rounded up."""
    return b.sdiv(b.add(n, ir.Constant(I64, by - 1)), ir.Constant(I64, by))


def _strips(e: Emitter, vectors: ir.Value, tail: ir.Value, emit: Callable[[int, bool, ir.Value], None]) -> None:
    """emit(width, masked, offset) for each strip of up to WIDEST vectors of a row; the last vector may be ragged."""
    b = e.builder
    ragged = b.icmp_signed("<", tail, e.number(e.lanes))

    def over_strips(i: ir.Value, left: ir.Value) -> Values:
        at = b.mul(i, e.number(WIDEST * e.lanes * e.size))
        is_last = b.icmp_signed("<=", left, e.number(WIDEST))
        masked = b.zext(b.and_(is_last, ragged), I64)
        width = b.select(is_last, left, e.number(WIDEST))
        done, unknown = b.append_basic_block("strip.done"), b.append_basic_block("strip.unknown")
        switch = b.switch(b.add(b.mul(width, e.number(2)), masked), unknown)
        for case in range(2, 2 * WIDEST + 2):
            block = b.append_basic_block(f"strip.{case // 2}.{case % 2}")
            switch.add_case(e.number(case), block)
            b.position_at_end(block)
            emit(case // 2, bool(case % 2), at)
            b.branch(done)
        b.position_at_end(unknown)
        b.unreachable()
        b.position_at_end(done)
        return [b.sub(left, e.number(WIDEST))]

    loop(b, _over(b, vectors, WIDEST), [vectors], over_strips)
