"""The two inner loops of convolution, as intrinsics: a tile of accumulators stays in registers through all of the sum.

Both add up products of a number, broadcast to all lanes, and a row of vectors over the output channels. Images need no
copy into a matrix: a tile's pixels are reached by their offsets, wherever they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinymaml.kernels.cpu.compiled.vectors import Emitter, each_tile, loop


@intrinsic
def pixel_tile(
    context: Any,
    zero: Any,
    rows: Any,
    vectors: Any,
    tail: Any,
    x: Any,
    x_offsets: Any,
    lines: Any,
    line: Any,
    run: Any,
    w: Any,
    w_step: Any,
    w_line: Any,
    c: Any,
    c_scale: Any,
    out: Any,
    out_offsets: Any,
) -> Any:
    """out[pixel] = c + the sum over `lines` kernel rows and their `run` numbers of x[pixel + number] w[number].

    A kernel row's taps and channels lie side by side in x as they do in w: one run; its numbers are `w_step` apart in
    w, and from a row to the next it is `line` in x, `w_line` in w. `zero` only gives the type; all else is addresses
    and lengths in bytes, but for rows (pixels), vectors, tail (lanes of the last vector), lines and run. `x_offsets`
    and `out_offsets` are addresses of 64-bit offsets, one a pixel. Pixel p starts from what lies at c + c_scale * its
    output offset: c_scale is 1 for an addend like out, 0 for one for all pixels.
    """
    kind = zero
    signature = types.void(kind, *([types.intp] * 15))

    def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
        _, rows, vectors, tail, x, x_offsets, lines, line, run, w, w_step, w_line, c, c_scale, out, out_offsets = args
        e = Emitter(b, kind, tail)

        def emit(height: int, width: int) -> None:
            pixels = [b.add(x, e.integer(e.add(x_offsets, 8 * r))) for r in range(height)]
            places = [e.integer(e.add(out_offsets, 8 * r)) for r in range(height)]
            at = [(r, v, v == width - 1) for r in range(height) for v in range(width)]
            addends = [b.add(c, b.mul(c_scale, place)) for place in places]
            start = [e.load(addends[r], v, last) for r, v, last in at]

            def over_lines(i: ir.Value, *sums: ir.Value) -> Sequence[ir.Value]:
                shift = b.mul(i, line)
                first = b.add(w, b.mul(i, w_line))
                here = [b.add(pixel, shift) for pixel in pixels]

                def over_run(k: ir.Value, w: ir.Value, *sums: ir.Value) -> Sequence[ir.Value]:
                    row = [e.load(w, v, v == width - 1) for v in range(width)]
                    offset = b.mul(k, e.number(e.size))
                    spread = [e.broadcast(b.add(pixel, offset)) for pixel in here]
                    new = [e.multiply_add(spread[r], row[v], total) for (r, v, _), total in zip(at, sums, strict=True)]
                    return [b.add(w, w_step), *new]

                return loop(b, run, [first, *sums], over_run)[1:]

            sums = loop(b, lines, start, over_lines)
            for (r, v, last), total in zip(at, sums, strict=True):
                e.store(total, b.add(out, places[r]), v, last)

        each_tile(e, rows, vectors, "pixels", emit)
        return cgctx.get_dummy_value()

    return signature, codegen


@intrinsic
def product_tile(
    context: Any,
    zero: Any,
    rows: Any,
    vectors: Any,
    tail: Any,
    count: Any,
    x: Any,
    x_offsets: Any,
    g: Any,
    g_offsets: Any,
    c: Any,
    c_row: Any,
    out: Any,
    out_row: Any,
) -> Any:
    """out[row] = c[row] + the sum over `count` pixels of x[pixel + row] g[pixel].

    The rows are numbers side by side in x; a pixel's place in x and in g is a 64-bit offset. `zero` gives the type;
    addresses and lengths as for `pixel_tile`.
    """
    kind = zero
    signature = types.void(kind, *([types.intp] * 12))

    def codegen(cgctx: Any, b: Any, sig: Any, args: Any) -> Any:
        _, rows, vectors, tail, count, x, x_offsets, g, g_offsets, c, c_row, out, out_row = args
        e = Emitter(b, kind, tail)

        def emit(height: int, width: int) -> None:
            at = [(r, v, v == width - 1) for r in range(height) for v in range(width)]
            start = [e.load(e.row(c, c_row, r), v, last) for r, v, last in at]

            def over_pixels(m: ir.Value, *sums: ir.Value) -> Sequence[ir.Value]:
                place = b.mul(m, e.number(8))
                pixel = b.add(x, e.integer(b.add(x_offsets, place)))
                along = b.add(g, e.integer(b.add(g_offsets, place)))
                row = [e.load(along, v, v == width - 1) for v in range(width)]
                spread = [e.broadcast(e.add(pixel, r * e.size)) for r in range(height)]
                return [e.multiply_add(spread[r], row[v], total) for (r, v, _), total in zip(at, sums, strict=True)]

            sums = loop(b, count, start, over_pixels)
            for (r, v, last), total in zip(at, sums, strict=True):
                e.store(total, e.row(out, out_row, r), v, last)

        each_tile(e, rows, vectors, "products", emit)
        return cgctx.get_dummy_value()

    return signature, codegen
