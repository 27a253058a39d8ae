"""Explicit LLVM vectors, for intrinsics that keep a tile of accumulators in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinymaml.kernels.cpu.compiled.jit import njit

_features = llvm.get_host_cpu_features()
BYTES = 64 if _features.get("avx512f") else 32 if _features.get("avx") else 16  # of one vector register
REGISTERS = 16 if BYTES == 32 or (_features.get("sse2") and BYTES == 16) else 32

# Tiles of accumulators: rows by vectors, all in registers beside a row of vectors and a number.
VECTORS = 4 if REGISTERS == 32 else 2  # the widest tile
HEIGHTS = tuple(min(8, (REGISTERS - v - 1) // v) for v in range(1, VECTORS + 1))  # the tallest, by its width

AHEAD = 16  # lines of memory asked for at a time, of what comes next: there is a tile's work to hide them behind

I32, I64 = ir.IntType(32), ir.IntType(64)


class Emitter:
    """Emits code for vectors of one floating type; the last vector of a row may be ragged, `tail` lanes wide.

    Addresses are 64-bit integers, in bytes.
    """

    def __init__(self, builder: ir.IRBuilder, kind: Any, tail: ir.Value) -> None:
        self.builder = builder
        self.size = kind.bitwidth // 8
        self.lanes = BYTES // self.size
        self.scalar = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        mask = ir.VectorType(ir.IntType(1), self.lanes)
        suffix = f"v{self.lanes}f{8 * self.size}"
        self._pointer = self.vector.as_pointer()
        self._fma = self._declare(f"llvm.fma.{suffix}", self.vector, [self.vector] * 3)
        self._load = self._declare(
            f"llvm.masked.load.{suffix}.p0", self.vector, [self._pointer, I32, mask, self.vector]
        )
        self._store = self._declare(
            f"llvm.masked.store.{suffix}.p0", ir.VoidType(), [self.vector, self._pointer, I32, mask]
        )
        self._align = ir.Constant(I32, self.size)
        index = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        self._mask = builder.icmp_signed("<", index, self._spread(tail))

    def _declare(self, name: str, result: ir.Type, args: Sequence[ir.Type]) -> ir.Function:
        module = self.builder.module
        known = module.globals.get(name)
        return known if known is not None else ir.Function(module, ir.FunctionType(result, args), name)

    def _spread(self, x: ir.Value) -> ir.Value:
        vector = ir.VectorType(x.type, self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        one = self.builder.insert_element(undefined, x, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(
            one, undefined, ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        )

    def number(self, n: int) -> ir.Value:
        return ir.Constant(I64, n)

    def add(self, address: ir.Value, offset: ir.Value | int) -> ir.Value:
        return self.builder.add(address, self.number(offset) if isinstance(offset, int) else offset)

    def row(self, first: ir.Value, stride: ir.Value, r: int) -> ir.Value:
        """The address of row r."""
        return self.builder.add(first, self.builder.mul(stride, self.number(r)))

    def integer(self, address: ir.Value) -> ir.Value:
        """The 64-bit integer at an address."""
        return self.builder.load(self.builder.inttoptr(address, I64.as_pointer()))

    def broadcast(self, address: ir.Value) -> ir.Value:
        """The number at an address, in all lanes."""
        x = self.builder.load(self.builder.inttoptr(address, self.scalar.as_pointer()))
        x.align = self.size
        return self._spread(x)

    def _at(self, row: ir.Value, v: int) -> ir.Value:
        return self.builder.inttoptr(self.add(row, v * self.lanes * self.size), self._pointer)

    def load(self, row: ir.Value, v: int, last: bool) -> ir.Value:
        """Vector v of a row; the last one under the mask, with zeros in the other lanes."""
        if last:
            return self.builder.call(self._load, [self._at(row, v), self._align, self._mask, self.zero])
        value = self.builder.load(self._at(row, v))
        value.align = self.size
        return value

    def store(self, value: ir.Value, row: ir.Value, v: int, last: bool) -> None:
        if last:
            self.builder.call(self._store, [value, self._at(row, v), self._align, self._mask])
        else:
            self.builder.store(value, self._at(row, v)).align = self.size

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a b + c, rounded once."""
        return self.builder.call(self._fma, [a, b, c])


def expect(b: ir.IRBuilder, address: ir.Value) -> None:
    """Have the line of memory at an address brought to the second cache, while the work goes on."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
    name = "llvm.prefetch.p0"
    b.call(
        b.module.globals.get(name) or ir.Function(b.module, kind, name),
        [b.inttoptr(address, byte), I32(0), I32(2), I32(1)],
    )


@intrinsic
def _expect(context: Any, address: Any) -> Any:
    def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
        expect(b, args[0])
        return cgctx.get_dummy_value()

    return types.void(types.intp), codegen


@njit(cache=True, nogil=True)
def expect_some(at: int, end: int) -> int:
    """Have some of the memory from one address to another brought to the second cache; returns how far it came."""
    stop = min(at + 64 * AHEAD, end)
    for address in range(at, stop, 64):
        _expect(address)
    return stop


def each_tile(e: Emitter, rows: ir.Value, vectors: ir.Value, name: str, emit: Callable[[int, int], None]) -> None:
    """Code for every size of tile, and the choice among them."""
    b = e.builder
    done, unknown = b.append_basic_block(f"{name}.done"), b.append_basic_block(f"{name}.unknown")
    switch = b.switch(b.add(b.mul(rows, e.number(VECTORS + 1)), vectors), unknown)
    for width in range(1, VECTORS + 1):
        for height in range(1, HEIGHTS[width - 1] + 1):
            block = b.append_basic_block(f"{name}.{height}x{width}")
            switch.add_case(e.number(height * (VECTORS + 1) + width), block)
            b.position_at_end(block)
            emit(height, width)
            b.branch(done)
    b.position_at_end(unknown)
    b.unreachable()
    b.position_at_end(done)


def loop(
    b: ir.IRBuilder, count: ir.Value, start: Sequence[ir.Value], body: Callable[..., Sequence[ir.Value]]
) -> list[ir.Value]:
    """body(i, *values) -> values, for i = 0 ... count - 1; none if count is 0."""
    entry = b.block
    again, end = b.append_basic_block("loop"), b.append_basic_block("end")
    b.cbranch(b.icmp_signed(">", count, ir.Constant(I64, 0)), again, end)
    b.position_at_end(again)
    phis = [b.phi(value.type) for value in (ir.Constant(I64, 0), *start)]
    after = [b.add(phis[0], ir.Constant(I64, 1)), *body(*phis)]
    for phi, first, then in zip(phis, (ir.Constant(I64, 0), *start), after, strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(then, b.block)
    inner = b.block
    b.cbranch(b.icmp_signed("<", after[0], count), again, end)
    b.position_at_end(end)
    results = []
    for first, then in zip(start, after[1:], strict=True):
        phi = b.phi(first.type)
        phi.add_incoming(first, entry)
        phi.add_incoming(then, inner)
        results.append(phi)
    return results


@njit(cache=True, nogil=True)
def tile_height(rows: int, tallest: int) -> int:
    """Tiles of about one height, none above the tallest."""
    tiles = max(1, (rows + tallest - 1) // tallest)
    return max(1, (rows + tiles - 1) // tiles)
