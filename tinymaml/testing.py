"""Gradients are proved, not believed: `check_derivatives` holds derivatives against what they must satisfy.

In float64 a forward derivative is compared with a central difference, and everything else with it by identities that
hold to rounding, so no tolerance hides an error in the reverse mode. The derivatives are then functions like any other,
of the arrays and of the cotangents or tangents, and are checked the same way, as far as `order` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.primitive import Primitive
from tinymaml.autodiff.sweeps import pull, push
from tinymaml.autodiff.tensor import FLOATS, Array, Tensor, constant
from tinymaml.transforms import enter, or_zeros

__all__ = ["DerivativeError", "check_derivatives"]

Run = Callable[[Sequence[Tensor]], list[Tensor]]  # floating tensors to floating tensors
IDENTITY = 1e-12  # what two ways to the same number in float64 may differ by, relative to its norm or to 1
STEPS = {2: np.finfo(np.float64).eps ** (1 / 3), 4: np.finfo(np.float64).eps ** (1 / 5)}


class DerivativeError(AssertionError):
    """A derivative is wrong, or is not finite. The message names the check, the order and the size of the error."""


def check_derivatives(
    function: Callable[..., Any],
    *arrays: Any,
    order: int = 3,
    rtol: float = 1e-6,
    floor: float = 1e-2,
    single: float = 1e-5,
    stencil: int = 2,
    step: float | None = None,
    seed: int = 0,
) -> None:
    """Check the derivatives of a primitive, or of any function, at one point; return if they are right.

    At every order, in float64:
      - Jv, by `push`, against a central difference of the value along a random v;
      - Jᵀg, by `pull`, by the adjoint identity <g, Jv> = <Jᵀg, v>: no differences, to 1e-12;
      - each input by itself against all together: rules have a branch for a missing (zero) tangent (order 1 only);
      - for s = <g, function(x)> the Hessian-vector product three ways (forward-over-reverse, reverse-over-reverse,
        reverse-over-forward) and its symmetry <u, Hv> = <v, Hu>, to 1e-12.
    Order n + 1 takes the functions (x, g) -> Jᵀg and (x, v) -> Jv of order n, where g and v are variables as x is.

    Float32 arrays are not differenced: the function is checked in float64 at the same numbers, and then its values and
    all its derivatives in float32 are compared with those.

    An error is the norm of the difference of two arrays, and is compared with a tolerance times the norm of the array
    (at least `floor`; at least 1 for identities and for float32), never with the number of elements.

    Args:
        function: takes the arrays, returns a tensor or a pytree of tensors. Integer and boolean outputs have no
            derivative and are left out, as are the residuals of a primitive. It should have no kink within a few steps
            of the point, for the difference.
        arrays: arrays or pytrees of them, of any shapes. Those of dtype float32 or float64 (one of the two for all) are
            differentiated by; integers, booleans and anything else are passed on.
        order: the highest order of derivative to check, 1, 2 or 3.
        rtol: tolerance of the comparison with a difference.
        floor: the smallest norm that `rtol` is taken of: a derivative that is 0 is compared with this.
        single: tolerance of the comparison of float32 with float64.
        stencil: 2, or 4 for the fourth-order difference, where the third derivative is large. It takes longer steps.
        step: of the difference, for directions of normal numbers; None chooses by the stencil and the largest number.
        seed: of the directions, which are drawn from the normal distribution.

    Raises:
        DerivativeError: (an AssertionError) a check failed, or a value or derivative is not finite.
        TypeError: no floating input or output, or inputs of both float32 and float64.
        ValueError: an `order` or `stencil` that there is not.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order must be 1, 2 or 3, got {order!r}")
    if stencil not in STEPS:
        raise ValueError(f"stencil must be 2 or 4, got {stencil!r}")
    name, run, floats = _flat(function, arrays)
    doubles = [x.astype(np.float64) if x.dtype != np.float64 else x for x in floats]
    settings = _Settings(rtol, floor, stencil, step)
    for point in _points(name, run, doubles, order, seed):
        _check_first(point, settings)
        if point.order == 1:
            _check_parts(point)
        if point.order < order:
            _check_second(point)
    if floats[0].dtype == np.float32:
        pairs = zip(_points(name, run, floats, order, seed), _points(name, run, doubles, order, seed), strict=True)
        for small, large in pairs:
            _check_single(small, large, single)


@dataclass(frozen=True)
class _Settings:
    rtol: float
    floor: float
    stencil: int
    step: float | None


@dataclass(frozen=True)
class _Point:
    """A function at one point, with a tangent for every input and a cotangent for every output."""

    name: str
    order: int
    run: Run
    arrays: list[Array]
    vs: list[Tensor]
    us: list[Tensor]
    gs: list[Tensor]

    def record(self) -> tuple[list[Tensor], list[Tensor]]:
        """Fresh variables and the outputs, recorded."""
        variables = [Tensor(x) for x in self.arrays]
        return variables, self.run(variables)

    def pull(self, ys: Sequence[Any], xs: Sequence[Tensor], gs: Sequence[Any]) -> list[Tensor]:
        """Jᵀg with zeros for None; what a rule gets wrong in shape or dtype is a failed check."""
        try:
            return or_zeros(pull(ys, xs, gs), xs)
        except ValueError as error:
            raise DerivativeError(f"{self.name}: at order {self.order} a vjp rule fails: {error}") from error

    def push(self, ys: Sequence[Any], xs: Sequence[Tensor], vs: Sequence[Any]) -> list[Tensor]:
        """Jv with zeros for None."""
        try:
            return or_zeros(push(ys, xs, vs), ys)
        except ValueError as error:
            raise DerivativeError(f"{self.name}: at order {self.order} a jvp rule fails: {error}") from error

    def compare(
        self, what: str, actual: Sequence[Any], expected: Sequence[Any], tolerance: float, floor: float
    ) -> None:
        """Raise DerivativeError unless each array is close to what is expected, by its norm."""
        for i, (one, other) in enumerate(zip(_arrays(actual), _arrays(expected), strict=True)):
            place = f"{self.name}: at order {self.order} {what}" + (f", array {i}" if len(expected) > 1 else "")
            if one.shape != other.shape:
                raise DerivativeError(f"{place}: the shapes are {one.shape} and {other.shape}")
            for array in (one, other):
                if not np.isfinite(array).all():
                    raise DerivativeError(f"{place}: not finite: {array}")
            error, norm = _norm(one.astype(np.float64) - other), _norm(other)
            if not error <= tolerance * max(norm, floor):
                raise DerivativeError(
                    f"{place}: differ by {error:.3g}, allowed {tolerance * max(norm, floor):.3g} "
                    f"({tolerance:g} of the norm {norm:.3g}, or of {floor:g} if that is more)"
                )

    def compare_products(self, what: str, one: Sequence[Sequence[Any]], other: Sequence[Sequence[Any]]) -> None:
        """Raise DerivativeError unless two inner products are the same, relative to the norms that they are made of."""
        a, b = _inner(*one), _inner(*other)
        allowed = IDENTITY * max(1.0, *(_size(x) * _size(y) for x, y in (one, other)))
        if not abs(a - b) <= allowed:  # a NaN fails too
            raise DerivativeError(
                f"{self.name}: at order {self.order} {what}: {a:.17g} and {b:.17g} differ by {abs(a - b):.3g}, "
                f"allowed {allowed:.3g}"
            )


def _check_first(point: _Point, settings: _Settings) -> None:
    """Jv against a central difference, Jᵀg against Jv."""
    xs, ys = point.record()
    point.compare("the value", ys, ys, 0.0, 0.0)  # finite
    jv = point.push(ys, xs, point.vs)
    jtg = point.pull(ys, xs, point.gs)
    point.compare("the jvp and a central difference", jv, _difference(point, settings), settings.rtol, settings.floor)
    point.compare_products("the vjp and the jvp, by <g, Jv> = <Jᵀg, v>", (point.gs, jv), (jtg, point.vs))
    point.compare("the vjp", jtg, jtg, 0.0, 0.0)


def _check_parts(point: _Point) -> None:
    """Derivatives by some inputs only, the others' tangents missing, are parts of those by all."""
    xs, ys = point.record()
    whole, gradient = point.push(ys, xs, point.vs), point.pull(ys, xs, point.gs)
    for i, x in enumerate(xs):
        alone: list[Any] = [v if j == i else None for j, v in enumerate(point.vs)]
        rest: list[Any] = [None if j == i else v for j, v in enumerate(point.vs)]
        parts = zip(_arrays(point.push(ys, xs, alone)), _arrays(point.push(ys, xs, rest)), strict=True)
        total = [a + b for a, b in parts]
        point.compare(f"the jvp by input {i} and that by the rest, summed,", total, whole, IDENTITY, 1)
        point.compare(f"the vjp by input {i} alone", point.pull(ys, [x], point.gs), [gradient[i]], IDENTITY, 1)


def _check_second(point: _Point) -> None:
    """The Hessian of <g, function(x)>: three ways to its product with v, and its symmetry."""
    point = replace(point, order=point.order + 1)
    xs, ys = point.record()
    gradient = point.pull(ys, xs, point.gs)
    product = point.push(gradient, xs, point.vs)
    backward = point.pull(gradient, xs, point.vs)
    slope = point.pull(point.push(ys, xs, point.vs), xs, point.gs)
    point.compare("reverse-over-reverse and forward-over-reverse", backward, product, IDENTITY, 1)
    point.compare("reverse-over-forward and forward-over-reverse", slope, product, IDENTITY, 1)
    other = point.push(gradient, xs, point.us)
    point.compare_products("the Hessian's symmetry, <u, Hv> = <v, Hu>", (point.us, product), (point.vs, other))


def _check_single(small: _Point, large: _Point, tolerance: float) -> None:
    """Value, Jv and Jᵀg in float32 against float64."""
    results = []
    for point in (small, large):
        xs, ys = point.record()
        results.append((ys, point.push(ys, xs, point.vs), point.pull(ys, xs, point.gs)))
    for what, ours, theirs in zip(("value", "jvp", "vjp"), *results, strict=True):
        for one in ours:
            if one.dtype != np.float32:
                raise DerivativeError(f"{small.name}: at order {small.order} the {what} of float32 is {one.dtype}")
        small.compare(f"the {what} in float32 and in float64", ours, theirs, tolerance, 1)


def _points(name: str, run: Run, arrays: list[Array], order: int, seed: int) -> Iterator[_Point]:
    """The function and its derivatives as functions of the cotangents and tangents too, up to an order."""
    rng = np.random.default_rng(seed)

    def directions(like: Sequence[Any]) -> list[Tensor]:
        # Numbers that float32 has as well, so that both precisions see the same.
        return [constant(rng.standard_normal(x.shape).astype(np.float32).astype(x.dtype)) for x in like]

    def visit(name: str, run: Run, arrays: list[Array], level: int) -> Iterator[_Point]:
        outputs = run([Tensor(x) for x in arrays])
        vs, us, gs = directions(arrays), directions(arrays), directions(outputs)
        yield _Point(name, level, run, arrays, vs, us, gs)
        if level < order:
            yield from visit(f"the vjp of {name}", _vjp_of(run, len(arrays)), [*arrays, *_arrays(gs)], level + 1)
            yield from visit(f"the jvp of {name}", _jvp_of(run, len(arrays)), [*arrays, *_arrays(vs)], level + 1)

    yield from visit(name, run, arrays, 1)


def _vjp_of(run: Run, count: int) -> Run:
    """(x, g) -> Jᵀg."""

    def derived(inputs: Sequence[Tensor]) -> list[Tensor]:
        xs = [enter(x) for x in inputs[:count]]
        return or_zeros(pull(run(xs), xs, inputs[count:]), xs)

    return derived


def _jvp_of(run: Run, count: int) -> Run:
    """(x, v) -> Jv."""

    def derived(inputs: Sequence[Tensor]) -> list[Tensor]:
        xs = [enter(x) for x in inputs[:count]]
        ys = run(xs)
        return or_zeros(push(ys, xs, inputs[count:]), ys)

    return derived


def _flat(function: Callable[..., Any], arrays: tuple[Any, ...]) -> tuple[str, Run, list[Array]]:
    """The function's name, the function from its floating inputs to its floating outputs, and those inputs."""
    name = function.name if isinstance(function, Primitive) else getattr(function, "__name__", type(function).__name__)
    leaves, structure = tree.flatten(arrays)
    leaves = [np.asarray(leaf) if isinstance(leaf, float | np.generic) else leaf for leaf in leaves]
    leaves = [leaf.data if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, np.ndarray) and leaf.dtype in FLOATS]
    dtypes = {leaves[i].dtype.name for i in places}
    if len(dtypes) != 1:
        kinds = ", ".join(sorted(dtypes)) or ", ".join(str(getattr(x, "dtype", type(x).__name__)) for x in leaves)
        raise TypeError(f"{name}: the floating arrays must be all float32 or all float64, got {kinds or 'none'}")

    def run(xs: Sequence[Tensor]) -> list[Tensor]:
        filled = list(leaves)
        for i, x in zip(places, xs, strict=True):
            filled[i] = x
        result = function(*tree.unflatten(structure, filled))
        if isinstance(function, Primitive) and isinstance(result, tuple):
            result = result[: function.outputs]
        tensors = [y if isinstance(y, Tensor) else constant(y) for y in tree.leaves(result)]
        if not any(y.dtype in FLOATS for y in tensors):
            raise TypeError(f"{name}: there is no floating output to differentiate")
        return [y for y in tensors if y.dtype in FLOATS]

    return name, run, [leaves[i] for i in places]


def _difference(point: _Point, settings: _Settings) -> list[Array]:
    """The derivative along v by values alone."""
    largest = max([1.0, *(float(np.abs(x).max()) for x in point.arrays if x.size)])
    h = settings.step or STEPS[settings.stencil] * largest

    def between(by: float) -> list[Array]:
        """f(x + by v) - f(x - by v)."""
        up, down = ([Tensor(x + s * v.data) for x, v in zip(point.arrays, point.vs, strict=True)] for s in (by, -by))
        pairs = zip(_arrays(point.run(up)), _arrays(point.run(down)), strict=True)
        return [a - b for a, b in pairs]

    if settings.stencil == 2:
        return [d / (2 * h) for d in between(h)]
    return [(8 * near - far) / (12 * h) for near, far in zip(between(h), between(2 * h), strict=True)]


def _arrays(tensors: Sequence[Any]) -> list[Any]:
    return [x.data if isinstance(x, Tensor) else np.asarray(x) for x in tensors]


def _norm(array: Array) -> float:
    return float(np.linalg.norm(array.astype(np.float64).ravel()))


def _size(tensors: Sequence[Any]) -> float:
    return float(np.linalg.norm([_norm(x) for x in _arrays(tensors)]))


def _inner(ones: Sequence[Any], others: Sequence[Any]) -> float:
    pairs = zip(_arrays(ones), _arrays(others), strict=True)
    return float(sum(np.vdot(a.astype(np.float64), b.astype(np.float64)) for a, b in pairs))
