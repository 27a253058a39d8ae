"""A pass over one window of an image, as an intrinsic: vectors run along the channels, and what is made of a window's
pixels stays in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tinymaml.kernels.cpu.compiled.vectors import BYTES, I32, I64, Emitter, loop

Values = Sequence[ir.Value]


class Strip(Emitter):
    """Emits code for one vector of channels, of which the last may be ragged.

    A place is the number of a pixel in its window, in reading order; there is one for each channel. In memory places
    are small, in registers as wide as the numbers, so that a mask of the ones fits the others.
    """

    count: ir.Value  # of the pixels of the window that are in the image
    below: ir.Value  # what the address grows by from the window to the one below it
    masked = False

    def __init__(self, builder: ir.IRBuilder, kind: Any, place: Any, tail: ir.Value) -> None:
        super().__init__(builder, kind, tail)
        self._wide = ir.VectorType(ir.IntType(8 * self.size), self.lanes)
        self._small = ir.VectorType(ir.IntType(place.bitwidth), self.lanes)
        self._bytes = ir.Constant(I32, place.bitwidth // 8)
        name, at, mask = f"v{self.lanes}i{place.bitwidth}.p0", self._small.as_pointer(), self._mask.type
        self._load_small = self._declare(f"llvm.masked.load.{name}", self._small, [at, I32, mask, self._small])
        self._store_small = self._declare(f"llvm.masked.store.{name}", ir.VoidType(), [self._small, at, I32, mask])
        self._fetch = self._declare("llvm.prefetch.p0", ir.VoidType(), [at, I32, I32, I32])

    def pixel(self, address: ir.Value) -> ir.Value:
        """The numbers of a pixel that is only read. Windows jump from row to row, so the next ones are asked for."""
        at = self.builder.inttoptr(self.add(address, self.below), self._small.as_pointer())
        read, near, data = (ir.Constant(I32, n) for n in (0, 3, 1))
        self.builder.call(self._fetch, [at, read, near, data])
        return self.numbers(address)

    def numbers(self, address: ir.Value) -> ir.Value:
        return self.load(address, 0, self.masked)

    def put_numbers(self, value: ir.Value, address: ir.Value) -> None:
        self.store(value, address, 0, self.masked)

    def places(self, address: ir.Value) -> ir.Value:
        b, at = self.builder, self.builder.inttoptr(address, self._small.as_pointer())
        if self.masked:
            loaded = b.call(self._load_small, [at, self._bytes, self._mask, ir.Constant(self._small, None)])
        else:
            loaded = b.load(at)
            loaded.align = self._bytes.constant
        return loaded if self._small == self._wide else b.sext(loaded, self._wide)

    def put_places(self, value: ir.Value, address: ir.Value) -> None:
        b, at = self.builder, self.builder.inttoptr(address, self._small.as_pointer())
        small = value if self._small == self._wide else b.trunc(value, self._small)
        if self.masked:
            b.call(self._store_small, [small, at, self._bytes, self._mask])
        else:
            b.store(small, at).align = self._bytes.constant

    def place(self, k: ir.Value) -> ir.Value:
        """Place k for every channel."""
        return self._spread(self.builder.trunc(k, self._wide.element) if self.size < 8 else k)

    def share(self, value: ir.Value) -> ir.Value:
        """The value over the number of pixels."""
        return self.builder.fdiv(value, self._spread(self.builder.sitofp(self.count, self.scalar)))


@intrinsic
def clear(context: Any, address: Any, count: Any) -> Any:
    """Zeros for `count` bytes. By address, as the passes write: so arrays that may only be read are taken as well."""

    def codegen(cgctx: Any, b: ir.IRBuilder, sig: Any, args: Any) -> Any:
        cgutils.memset(b, b.inttoptr(args[0], ir.IntType(8).as_pointer()), args[1], 0)
        return cgctx.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


Begin = Callable[[Strip, ir.Value, ir.Value, ir.Value, ir.Value], Values]
Pixel = Callable[[Strip, ir.Value, ir.Value, Values], Values]
End = Callable[[Strip, Values, ir.Value, ir.Value], None]


def window_pass(begin: Begin, pixel: Pixel, end: End) -> Any:
    """An intrinsic pass(zero, place, channels, rows, columns, k, width, pixels, row, y, at).

    `zero` and `place` only give the types. `rows` and `columns` are those of the window that are in the image; `pixels`
    is the address of the first of these pixels, `k` its place, `width` what the place grows by from row to row and
    `row` what the address does. `y` and `at` are the addresses of the window's numbers and places.

    begin(s, pixels, k, y, at) -> state; pixel(s, address, k, state) -> state, in reading order; end(s, state, y, at).
    """

    @intrinsic
    def run(context: Any, zero: Any, place: Any, channels: Any, rows: Any, columns: Any, k: Any, width: Any,
            pixels: Any, row: Any, y: Any, at: Any) -> Any:  # fmt: skip
        signature = types.void(zero, place, *[types.intp] * 9)

        def codegen(cgctx: Any, b: ir.IRBuilder, sig: Any, args: Any) -> Any:
            channels, rows, columns, k, width, pixels, row, y, at = args[2:]
            lanes = ir.Constant(I64, BYTES * 8 // zero.bitwidth)
            full = b.sdiv(channels, lanes)
            tail = b.sub(channels, b.mul(full, lanes))
            s = Strip(b, zero, place, tail)
            s.count, s.below = b.mul(rows, columns), b.mul(rows, row)
            step = b.mul(channels, s.number(s.size))

            def strip(masked: bool) -> Callable[..., Values]:
                def emit(i: ir.Value, pixels: ir.Value, y: ir.Value, at: ir.Value) -> Values:
                    s.masked = masked

                    def over_rows(i: ir.Value, left: ir.Value, k: ir.Value, *state: ir.Value) -> Values:
                        def over_columns(j: ir.Value, address: ir.Value, *state: ir.Value) -> Values:
                            return [b.add(address, step), *pixel(s, address, b.add(k, j), state)]

                        return [b.add(left, row), b.add(k, width), *loop(b, columns, [left, *state], over_columns)[1:]]

                    state = loop(b, rows, [pixels, k, *begin(s, pixels, k, y, at)], over_rows)[2:]
                    end(s, state, y, at)
                    skip = s.number(BYTES)
                    return [b.add(pixels, skip), b.add(y, skip), b.add(at, b.mul(lanes, s.number(place.bitwidth // 8)))]

                return emit

            rest = loop(b, full, [pixels, y, at], strip(False))
            loop(b, b.zext(b.icmp_signed(">", tail, s.number(0)), I64), rest, strip(True))
            return cgctx.get_dummy_value()

        return signature, codegen

    return run
