"""The passes of batch normalisation over rows, number by number, on vectors.

The first three coefficients are those of `_gate`. `centred` is x - mean.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from tinymaml.kernels.cpu.compiled.rows import row_pass
from tinymaml.kernels.cpu.compiled.vectors import Emitter

Values = Sequence[ir.Value]


def _moments(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """The sums of x - c and of its square."""
    x = e.builder.fsub(xs[0], cs[0])
    return [], [e.builder.fadd(sums[0], x), e.multiply_add(x, x, sums[1])]


def _value(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """centred gain + shift, not under the lowest; what is not a number stays so."""
    mean, gain, shift, lowest = cs
    z = e.multiply_add(e.builder.fsub(xs[0], mean), gain, shift)
    return [e.builder.select(e.builder.fcmp_ordered("<=", z, lowest), lowest, z)], []


def _gate(e: Emitter, x: ir.Value, cs: Values, *gs: ir.Value) -> list[ir.Value]:
    """(centred, each g where y > 0, else 0); without a ReLU the gain is 0 and the shift 1."""
    mean, gain, shift = cs[:3]
    centred = e.builder.fsub(x, mean)
    is_open = e.builder.fcmp_ordered(">", e.multiply_add(centred, gain, shift), e.zero)
    return [centred, *[e.builder.select(is_open, g, e.zero) for g in gs]]


def _gradient_sums(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """The sums of g and of centred g."""
    centred, g = _gate(e, xs[0], cs, xs[1])
    return [], [e.builder.fadd(sums[0], g), e.multiply_add(centred, g, sums[1])]


def _gradient_rows(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """by_g g + by_x centred + rest."""
    by_g, by_x, rest = cs[3:]
    centred, g = _gate(e, xs[0], cs, xs[1])
    return [e.multiply_add(by_g, g, e.multiply_add(by_x, centred, rest))], []


def _tangent_sums(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """The sums of v and of centred v."""
    centred = e.builder.fsub(xs[0], cs[0])
    return [], [e.builder.fadd(sums[0], xs[1]), e.multiply_add(centred, xs[1], sums[1])]


def _tangent_rows(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """by_v v + by_x centred + rest, through the gate."""
    by_v, by_x, rest = cs[3:]
    centred = e.builder.fsub(xs[0], cs[0])
    moved = e.multiply_add(by_v, xs[1], e.multiply_add(by_x, centred, rest))
    return _gate(e, xs[0], cs, moved)[1:], []


def _hessian_sums(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """The sums of g, centred g, v, centred v, g v, vg and centred vg."""
    x, g, v, vg = xs
    centred, g, vg = _gate(e, x, cs, g, vg)
    terms = (g, (centred, g), v, (centred, v), (g, v), vg, (centred, vg))
    return [], [
        e.multiply_add(*term, total) if isinstance(term, tuple) else e.builder.fadd(total, term)
        for term, total in zip(terms, sums, strict=True)
    ]


def _hessian_rows(e: Emitter, xs: Values, cs: Values, sums: Values) -> tuple[Values, Values]:
    """by_g g + by_v v + by_vg vg + by_x centred + rest."""
    x, g, v, vg = xs
    by_g, by_v, by_vg, by_x, rest = cs[3:]
    centred, g, vg = _gate(e, x, cs, g, vg)
    total = e.multiply_add(by_x, centred, rest)
    for factor, value in ((by_g, g), (by_v, v), (by_vg, vg)):
        total = e.multiply_add(factor, value, total)
    return [total], []


moments_pass = row_pass(1, 0, 1, 2, _moments)
value_pass = row_pass(1, 1, 4, 0, _value)
gradient_sums_pass = row_pass(2, 0, 3, 2, _gradient_sums)
gradient_rows_pass = row_pass(2, 1, 6, 0, _gradient_rows)
tangent_sums_pass = row_pass(2, 0, 3, 2, _tangent_sums)
tangent_rows_pass = row_pass(2, 1, 6, 0, _tangent_rows)
hessian_sums_pass = row_pass(4, 0, 3, 7, _hessian_sums)
hessian_rows_pass = row_pass(4, 1, 8, 0, _hessian_rows)
