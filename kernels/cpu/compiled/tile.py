"""A tile of a matrix product in vector registers, as an intrinsic of explicit LLVM vectors; and a transposed block.

`rows` x `vectors` accumulators live in registers while k runs: a row of b is loaded once for all rows of the tile, an
entry of a is broadcast over all its vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinymaml.kernels.cpu.compiled.jit import njit
from tinymaml.kernels.cpu.compiled.vectors import I32, I64, Emitter, each_tile, loop


@intrinsic
def tile(
    context: Any,
    zero: Any,
    rows: Any,
    vectors: Any,
    tail: Any,
    k: Any,
    a: Any,
    a_row: Any,
    a_k: Any,
    b_: Any,
    b_k: Any,
    c: Any,
    c_row: Any,
    out: Any,
    out_row: Any,
) -> Any:
    """out = a b + c for one tile. Addresses and strides are in bytes; `tail` is the number of lanes of the last vector.

    `zero` only gives the type, float32 or float64. `vectors` is at most VECTORS, `rows` at most HEIGHTS[vectors - 1].
    """
    kind = zero
    signature = types.void(kind, *([types.intp] * 13))

    def codegen(cgctx: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, rows, vectors, tail, k, a, a_row, a_k, b, b_k, c, c_row, out, out_row = args
        e = Emitter(builder, kind, tail)

        def emit(height: int, width: int) -> None:
            at = [(r, v, v == width - 1) for r in range(height) for v in range(width)]
            start = [e.load(e.row(c, c_row, r), v, last) for r, v, last in at]

            def step(i: ir.Value, a: ir.Value, b: ir.Value, *sums: ir.Value) -> Sequence[ir.Value]:
                row = [e.load(b, v, v == width - 1) for v in range(width)]
                spread = [e.broadcast(e.row(a, a_row, r)) for r in range(height)]
                new = [e.multiply_add(spread[r], row[v], total) for (r, v, _), total in zip(at, sums, strict=True)]
                return [builder.add(a, a_k), builder.add(b, b_k), *new]

            _, _, *sums = loop(builder, k, [a, b, *start], step)
            for (r, v, last), total in zip(at, sums, strict=True):
                e.store(total, e.row(out, out_row, r), v, last)

        each_tile(e, rows, vectors, "tile", emit)
        return cgctx.get_dummy_value()

    return signature, codegen


BLOCK = 8  # rows and columns that `transpose_block` takes


@intrinsic
def transpose_block(context: Any, zero: Any, source: Any, source_row: Any, target: Any, target_row: Any) -> Any:
    """A block of BLOCK x BLOCK numbers of `zero`'s type, transposed: in three rounds that exchange halves of halves."""
    kind = zero
    size = kind.bitwidth // 8
    signature = types.void(kind, *([types.intp] * 4))

    def codegen(cgctx: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, source, source_row, target, target_row = args
        vector = ir.VectorType(ir.FloatType() if size == 4 else ir.DoubleType(), BLOCK)
        pick = ir.VectorType(I32, BLOCK)

        def row(base: ir.Value, stride: ir.Value, i: int) -> ir.Value:
            return builder.inttoptr(builder.add(base, builder.mul(stride, ir.Constant(I64, i))), vector.as_pointer())

        rows = []
        for i in range(BLOCK):
            rows.append(builder.load(row(source, source_row, i)))
            rows[i].align = size
        for s in (1, 2, 4):
            low = ir.Constant(pick, [BLOCK + j - s if j & s else j for j in range(BLOCK)])
            high = ir.Constant(pick, [BLOCK + j if j & s else j + s for j in range(BLOCK)])
            for i in range(BLOCK):
                if not i & s:
                    a, b = rows[i], rows[i + s]
                    rows[i], rows[i + s] = builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)
        for i in range(BLOCK):
            builder.store(rows[i], row(target, target_row, i)).align = size
        return cgctx.get_dummy_value()

    return signature, codegen


@njit(cache=True, nogil=True)
def transpose(b: Any, out: Any) -> None:
    """out = b transposed: whole blocks in registers, the ragged rest number by number."""
    rows, columns = b.shape
    size = out.itemsize
    whole_rows, whole_columns = rows - rows % BLOCK, columns - columns % BLOCK
    zero = out.dtype.type(0)
    for i in range(0, whole_rows, BLOCK):
        for j in range(0, whole_columns, BLOCK):
            source = b.ctypes.data + (i * columns + j) * size
            transpose_block(zero, source, columns * size, out.ctypes.data + (j * rows + i) * size, rows * size)
    for i in range(rows):
        for j in range(whole_columns if i < whole_rows else 0, columns):
            out[j, i] = b[i, j]
