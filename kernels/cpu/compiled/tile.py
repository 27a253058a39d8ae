"""A tile of a matrix product in vector registers, as an intrinsic of explicit LLVM vectors; and a transposed block.

`rows` x `vectors` accumulators live in registers while k runs: a row of b is loaded once for all rows of the tile, an
entry of a is broadcast over all its vectors. The last vector of a tile may be ragged: it is loaded and stored under a
mask.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_features = llvm.get_host_cpu_features()
BYTES = 64 if _features.get("avx512f") else 32 if _features.get("avx") else 16  # of one vector register
ROWS = (6, 4, 2, 1) if BYTES == 64 else (4, 2, 1)  # heights of tiles, tallest first
VECTORS = 3 if BYTES == 64 else 2  # the widest tile: 6 x 3 accumulators of 32 registers, or 4 x 2 of 16

_i32, _i64 = ir.IntType(32), ir.IntType(64)


def _lanes(kind: Any) -> int:
    return BYTES // (kind.bitwidth // 8)


def _splat(b: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    vector = ir.VectorType(scalar.type, lanes)
    one = b.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(_i32, 0))
    return b.shuffle_vector(
        one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(_i32, lanes), [0] * lanes)
    )


def _declare(b: ir.IRBuilder, name: str, result: ir.Type, args: list[ir.Type]) -> ir.Function:
    known = b.module.globals.get(name)
    return known if known is not None else ir.Function(b.module, ir.FunctionType(result, args), name)


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

    `zero` only gives the type, float32 or float64. `rows` is one of ROWS, `vectors` at most VECTORS.
    """
    kind = zero
    lanes, size = _lanes(kind), kind.bitwidth // 8
    signature = types.void(kind, *([types.intp] * 13))

    def codegen(cgctx: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, rows, vectors, tail, k, a, a_row, a_k, b0, b_k, c, c_row, out, out_row = args
        scalar = ir.FloatType() if size == 4 else ir.DoubleType()
        vector = ir.VectorType(scalar, lanes)
        suffix = f"v{lanes}f{8 * size}"
        mask_type = ir.VectorType(ir.IntType(1), lanes)
        fma = _declare(builder, f"llvm.fma.{suffix}", vector, [vector] * 3)
        pointer = vector.as_pointer()
        masked_load = _declare(builder, f"llvm.masked.load.{suffix}.p0", vector, [pointer, _i32, mask_type, vector])
        masked_store = _declare(
            builder, f"llvm.masked.store.{suffix}.p0", ir.VoidType(), [vector, pointer, _i32, mask_type]
        )
        align = ir.Constant(_i32, size)

        def number(n: int) -> ir.Value:
            return ir.Constant(_i64, n)

        index = ir.Constant(ir.VectorType(_i64, lanes), list(range(lanes)))
        mask = builder.icmp_signed("<", index, _splat(builder, tail, lanes))

        def at(base: ir.Value, v: int) -> ir.Value:
            return builder.inttoptr(builder.add(base, number(v * lanes * size)), pointer)

        def load(base: ir.Value, v: int, last: bool) -> ir.Value:
            if last:
                return builder.call(masked_load, [at(base, v), align, mask, ir.Constant(vector, [0.0] * lanes)])
            value = builder.load(at(base, v))
            value.align = size
            return value

        def store(value: ir.Value, base: ir.Value, v: int, last: bool) -> None:
            if last:
                builder.call(masked_store, [value, at(base, v), align, mask])
            else:
                builder.store(value, at(base, v)).align = size

        done = builder.append_basic_block("tile.done")
        unknown = builder.append_basic_block("tile.unknown")
        which = builder.add(builder.mul(rows, number(VECTORS + 1)), vectors)
        switch = builder.switch(which, unknown)
        for r in ROWS:
            for width in range(1, VECTORS + 1):
                block = builder.append_basic_block(f"tile.{r}x{width}")
                switch.add_case(number(r * (VECTORS + 1) + width), block)
                builder.position_at_end(block)
                begin = [
                    load(builder.add(c, builder.mul(c_row, number(i))), v, v == width - 1)
                    for i in range(r)
                    for v in range(width)
                ]
                loop = builder.append_basic_block(f"tile.{r}x{width}.k")
                end = builder.append_basic_block(f"tile.{r}x{width}.end")
                builder.cbranch(builder.icmp_signed(">", k, number(0)), loop, end)
                entry = builder.block
                builder.position_at_end(loop)
                step = builder.phi(_i64)
                a_at, b_at = builder.phi(_i64), builder.phi(_i64)
                sums = [builder.phi(vector) for _ in begin]
                row = [load(b_at, v, v == width - 1) for v in range(width)]
                new = []
                for i in range(r):
                    place = builder.add(a_at, builder.mul(a_row, number(i)))
                    x = builder.load(builder.inttoptr(place, scalar.as_pointer()))
                    x.align = size
                    spread = _splat(builder, x, lanes)
                    new += [builder.call(fma, [spread, row[v], sums[i * width + v]]) for v in range(width)]
                step2, a2, b2 = builder.add(step, number(1)), builder.add(a_at, a_k), builder.add(b_at, b_k)
                for phi, first, then in zip(
                    [step, a_at, b_at, *sums], [number(0), a, b0, *begin], [step2, a2, b2, *new], strict=True
                ):
                    phi.add_incoming(first, entry)
                    phi.add_incoming(then, builder.block)
                inner = builder.block
                builder.cbranch(builder.icmp_signed("<", step2, k), loop, end)
                builder.position_at_end(end)
                for n, (first, then) in enumerate(zip(begin, new, strict=True)):
                    total = builder.phi(vector)
                    total.add_incoming(first, entry)
                    total.add_incoming(then, inner)
                    new[n] = total
                for i in range(r):
                    target = builder.add(out, builder.mul(out_row, number(i)))
                    for v in range(width):
                        store(new[i * width + v], target, v, v == width - 1)
                builder.branch(done)
        builder.position_at_end(unknown)
        builder.unreachable()
        builder.position_at_end(done)
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
        pick = ir.VectorType(_i32, BLOCK)

        def row(base: ir.Value, stride: ir.Value, i: int) -> ir.Value:
            return builder.inttoptr(builder.add(base, builder.mul(stride, ir.Constant(_i64, i))), vector.as_pointer())

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
