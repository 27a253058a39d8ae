"""A pass over rows of channels, as an intrinsic: vectors run along the channels, sums stay in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinymaml.kernels.cpu.compiled.vectors import Emitter, loop

WIDEST = 2  # vectors at a time: the sums and coefficients of more would not stay in registers

Values = Sequence[ir.Value]


def row_pass(
    inputs: int, outputs: int, coefficients: int, sums: int, body: Callable[[Emitter, Values, Values, Values], Any]
) -> Any:
    """An intrinsic pass(zero, vectors, tail, rows, step, addresses) that runs `body` on every vector of every row.

    `addresses` is a tuple: of the inputs and outputs, `step` bytes from row to row, of the coefficients, one row for
    all, and of the sums, written at the end. `body(e, inputs, coefficients, sums)` returns (outputs, sums).
    """

    @intrinsic
    def run(context: Any, zero: Any, vectors: Any, tail: Any, rows: Any, step: Any, addresses: Any) -> Any:
        count = inputs + outputs + coefficients + sums
        signature = types.void(zero, *([types.intp] * 4), types.UniTuple(types.intp, count))

        def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
            _, vectors, tail, rows, step, packed = args
            e = Emitter(b, zero, tail)
            at = [b.extract_value(packed, i) for i in range(count)]
            done, unknown = b.append_basic_block("rows.done"), b.append_basic_block("rows.unknown")
            switch = b.switch(vectors, unknown)
            for width in range(1, WIDEST + 1):
                block = b.append_basic_block(f"rows.{width}")
                switch.add_case(e.number(width), block)
                b.position_at_end(block)
                emit(e, width, at, rows, step)
                b.branch(done)
            b.position_at_end(unknown)
            b.unreachable()
            b.position_at_end(done)
            return cgctx.get_dummy_value()

        return signature, codegen

    def emit(e: Emitter, width: int, at: Values, rows: ir.Value, step: ir.Value) -> None:
        moving, fixed = at[: inputs + outputs], at[inputs + outputs :]
        columns = [(v, v == width - 1) for v in range(width)]
        known = [[e.load(row, v, last) for row in fixed[:coefficients]] for v, last in columns]

        def over_rows(i: ir.Value, *state: ir.Value) -> Values:
            places, totals = state[: len(moving)], state[len(moving) :]
            new: list[ir.Value] = []
            for v, last in columns:
                values = [e.load(row, v, last) for row in places[:inputs]]
                found, own = body(e, values, known[v], totals[v * sums : (v + 1) * sums])
                for value, row in zip(found, places[inputs:], strict=True):
                    e.store(value, row, v, last)
                new += own
            return [*[e.builder.add(row, step) for row in places], *new]

        totals = loop(e.builder, rows, [*moving, *[e.zero] * (sums * width)], over_rows)[len(moving) :]
        for v, last in columns:
            for value, row in zip(totals[v * sums : (v + 1) * sums], fixed[coefficients:], strict=True):
                e.store(value, row, v, last)

    return run
