"""exp, expm1, tanh, log and log1p as arithmetic, which LLVM turns into vectors: libm takes one number at a time.

Each is a few lines of text-book mathematics: reduce the argument, take a polynomial, scale the result. They are within
2.6 units in the last place, exp and the logarithms within 1.1 (a test measures it), right at 0, at infinities and for
subnormal numbers, and NaN stays. Nothing is rounded together or reordered, so a number's result depends on that number
alone, wherever it lies in whatever kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import factorial
from typing import NamedTuple

from llvmlite import ir


class _Format(NamedTuple):
    """What differs between floating types."""

    word: ir.Type  # the whole number of the same size
    mantissa: int  # bits
    shifter: float  # added to a number below 2**(mantissa - 2), it leaves the nearest whole number in the lowest bits
    exp_range: tuple[float, float]  # where exp is neither 0 nor infinite, and a little more
    one_less: float  # expm1 is -1 below, and tanh is 1 above half of what this is below 0
    ln2: tuple[float, float]  # in two parts: a whole number below 2**11 (2**8) times the first is exact
    terms: int  # of the series of exp: |r| <= log(2) / 2
    atanh: int  # of the series of atanh: s <= (sqrt(2) - 1) / (sqrt(2) + 1)
    tiny: float  # the smallest normal number


_DOUBLE = _Format(
    ir.IntType(64), 52, 1.5 * 2.0**52, (-746.0, 710.0), -40.0,
    (6.93147180369123816490e-01, 1.90821492927058770002e-10), 14, 11, 2.0**-1022,
)  # fmt: skip
_SINGLE = _Format(
    ir.IntType(32), 23, 1.5 * 2.0**23, (-104.0, 89.0), -18.0, (6.9314575195e-01, 1.4286067653e-06), 8, 5, 2.0**-126
)


class _Value:
    """A value with Python's operators; numbers take its type."""

    def __init__(self, b: ir.IRBuilder, value: ir.Value) -> None:
        self.b, self.value = b, value
        self.format = _SINGLE if isinstance(value.type, ir.FloatType) else _DOUBLE

    def of(self, value: _Value | float) -> ir.Value:
        """The other operand."""
        return value.value if isinstance(value, _Value) else ir.Constant(self.value.type, value)

    def __add__(self, other: _Value | float) -> _Value:
        return _Value(self.b, self.b.fadd(self.value, self.of(other)))

    def __sub__(self, other: _Value | float) -> _Value:
        return _Value(self.b, self.b.fsub(self.value, self.of(other)))

    def __rsub__(self, other: float) -> _Value:
        return _Value(self.b, self.b.fsub(self.of(other), self.value))

    def __mul__(self, other: _Value | float) -> _Value:
        return _Value(self.b, self.b.fmul(self.value, self.of(other)))

    def __truediv__(self, other: _Value | float) -> _Value:
        return _Value(self.b, self.b.fdiv(self.value, self.of(other)))

    def __neg__(self) -> _Value:
        return _Value(self.b, self.b.fneg(self.value))

    def where(self, sign: str, other: _Value | float, then: _Value | float) -> _Value:
        """`then` where self < other (or another sign), else self; NaN stays."""
        condition = self.b.fcmp_ordered(sign, self.value, self.of(other))
        return _Value(self.b, self.b.select(condition, self.of(then), self.value))

    def unless(self, x: _Value, sign: str, other: float, then: _Value | float) -> _Value:
        """`then` where x < other (or another sign), else self."""
        condition = self.b.fcmp_ordered(sign, x.value, self.of(other))
        return _Value(self.b, self.b.select(condition, self.of(then), self.value))

    def bits(self) -> ir.Value:
        return self.b.bitcast(self.value, self.format.word)

    def from_bits(self, bits: ir.Value) -> _Value:
        return _Value(self.b, self.b.bitcast(bits, self.value.type))


def _polynomial(x: _Value, coefficients: Sequence[float]) -> _Value:
    """c[0] + c[1] x + c[2] x**2 + ..."""
    total = x * coefficients[-1] + coefficients[-2]
    for c in reversed(coefficients[:-2]):
        total = total * x + c
    return total


def _power_of_two(shifted: _Value) -> _Value:
    """2**n for a whole number n + shifter, whose lowest bits are n: they are moved to where the exponent is."""
    b, form = shifted.b, shifted.format
    exponent = b.shl(shifted.bits(), ir.Constant(form.word, form.mantissa))
    return shifted.from_bits(b.add(exponent, _Value(b, shifted.of(1.0)).bits()))


def _reduced(x: _Value) -> tuple[_Value, _Value]:
    """n and exp(r) - 1 with x = n log(2) + r, n whole and |r| <= log(2) / 2."""
    form = x.format
    n = (x * 1.4426950408889634 + form.shifter) - form.shifter
    r = (x - n * form.ln2[0]) - n * form.ln2[1]
    series = _polynomial(r, [1 / factorial(k) for k in range(2, form.terms)])
    return n, r + r * r * series


def _exp(x: _Value) -> _Value:
    low, high = x.format.exp_range
    n, e = _reduced(x.where("<", low, low).where(">", high, high))
    # In two steps: 2**n itself may be too large, or too small, for what is to be scaled.
    half = n * 0.5 + x.format.shifter
    rest = (n - (half - x.format.shifter)) + x.format.shifter
    return (e + 1.0) * _power_of_two(half) * _power_of_two(rest)


def _expm1(x: _Value) -> _Value:
    least, high = x.format.one_less, x.format.exp_range[1]
    n, e = _reduced(x.where("<", least, least).where(">", high, high))
    # 2**n (1 + e) - 1, without what is lost when the 1 is taken from it: for n = 0 it is e.
    inverse = _power_of_two(x.format.shifter - n.where(">", 60.0, 60.0))
    half = n * 0.5 + x.format.shifter
    rest = (n - (half - x.format.shifter)) + x.format.shifter
    value = ((1.0 - inverse) + e) * _power_of_two(half) * _power_of_two(rest)
    return value.unless(x, "==", 0.0, x)  # of -0 too


def _tanh(x: _Value) -> _Value:
    """(exp(2 |x|) - 1) / (exp(2 |x|) + 1) with the sign of x."""
    size = x.where("<", 0.0, -x)
    most = -x.format.one_less
    n, e = _reduced((size + size).where(">", most, most))
    # As in `_expm1`; n is small and not negative.
    inverse, power = _power_of_two(x.format.shifter - n), _power_of_two(n + x.format.shifter)
    above = ((1.0 - inverse) + e) * power
    value = above / (above + 2.0)
    return value.unless(x, "<", 0.0, -value).unless(x, "==", 0.0, x)


def _split(x: _Value) -> tuple[_Value, _Value]:
    """k and m with x = 2**k m, sqrt(1/2) <= m < sqrt(2); x is a normal number > 0."""
    b, form = x.b, x.format
    root = _Value(b, x.of(0.7071067811865476)).bits()
    shift, shifter = ir.Constant(form.word, form.mantissa), _Value(b, x.of(form.shifter)).bits()
    k = b.ashr(b.sub(x.bits(), root), shift)
    return x.from_bits(b.add(k, shifter)) - form.shifter, x.from_bits(b.sub(x.bits(), b.shl(k, shift)))


def _log_of(k: _Value, m: _Value, correction: _Value | float) -> _Value:
    """k log(2) + log(m) + correction: log(1 + f) = f - (f**2 / 2 - s (f**2 / 2 + R)), s = f / (2 + f),
    R = 2 (s**2 / 3 + s**4 / 5 + ...), which is 2 atanh(s) with what is large in it taken out."""
    form = m.format
    f = m - 1.0
    s = f / (f + 2.0)
    z = s * s
    series = z * _polynomial(z, [2 / (2 * i + 3) for i in range(form.atanh)])
    half = f * f * 0.5
    return k * form.ln2[0] - ((half - (s * (half + series) + (k * form.ln2[1] + correction))) - f)


def _log(x: _Value) -> _Value:
    form = x.format
    scale = 2.0 ** (form.mantissa + 1)
    small = x.b.fcmp_ordered("<", x.value, x.of(form.tiny))
    k, m = _split(_Value(x.b, x.b.select(small, (x * scale).value, x.value)))
    k = _Value(x.b, x.b.select(small, (k - float(form.mantissa + 1)).value, k.value))
    return _at_the_ends(_log_of(k, m, 0.0), x, 0.0)


def _log1p(x: _Value) -> _Value:
    u = x + 1.0
    lost = (x - (u - 1.0)).unless(x, ">", 1.0, 1.0 - (u - x))  # by rounding u
    k, m = _split(u)
    return _at_the_ends(_log_of(k, m, lost / u), x, -1.0).unless(x, "==", 0.0, x)


def _at_the_ends(value: _Value, x: _Value, least: float) -> _Value:
    """A logarithm: -inf at its least argument, NaN below it and for NaN, inf for inf."""
    infinity = float("inf")
    value = value.unless(x, "==", least, -infinity).unless(x, "<", least, float("nan"))
    unordered = x.b.fcmp_unordered("==", x.value, x.of(infinity))  # inf, or NaN
    return _Value(x.b, x.b.select(unordered, x.value, value.value))


FUNCTIONS: dict[str, Callable[[_Value], _Value]] = {
    "exp": _exp, "expm1": _expm1, "tanh": _tanh, "log": _log, "log1p": _log1p
}  # fmt: skip


def call(b: ir.IRBuilder, name: str, x: ir.Value) -> ir.Value:
    """The value of one of `FUNCTIONS`."""
    return FUNCTIONS[name](_Value(b, x)).value
