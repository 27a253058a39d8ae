"""The same as primitive_cases for the public functions that are made of primitives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tinymaml as tm
from tests.cases import conv_cases, norm_cases, pool_cases
from tests.cases.primitive_cases import Case, Source, axes_of, logsumexp_of

COMPOSITES: dict[str, Callable[[Source], Case]] = conv_cases.COMPOSITES | norm_cases.COMPOSITES | pool_cases.COMPOSITES


def composite(function: Callable[[Source], Case]) -> Callable[[Source], Case]:
    """The case of the public function that has this name (an underscore in front is left out)."""
    COMPOSITES[function.__name__.strip("_")] = function
    return function


def _reduction(name: str, least: int, values: str) -> None:
    def draw(s: Source) -> Case:
        x = getattr(s, values)(s.shape(side=least))
        axis, keep = axes_of(s, x.ndim), s.pick(False, True)
        ours, theirs = getattr(tm, name), getattr(np, name)
        return Case(lambda x: ours(x, axis, keep), (x,), lambda x: theirs(x, axis=axis, keepdims=keep))

    COMPOSITES[name] = draw


_reduction("sum", 0, "normal")
_reduction("mean", 1, "normal")
_reduction("max", 1, "distinct")
_reduction("min", 1, "distinct")
_reduction("var", 1, "normal")


def _choice(name: str) -> None:
    def draw(s: Source) -> Case:
        shape = s.shape()
        values = s.distinct((2, *shape))
        narrow = s.narrowed(shape)
        b = np.broadcast_to(values[1], shape)[tuple(slice(0, 1) if n == 1 else slice(None) for n in shape)]
        b = b.reshape(shape)[(0,) * (len(shape) - len(narrow))] if b.size else np.zeros(narrow, s.dtype) - 50
        b = b[tuple(slice(0, n) for n in narrow)] + s.dtype.type(0.03)
        return Case(getattr(tm, name), (values[0], b), getattr(np, name))

    COMPOSITES[name] = draw


_choice("maximum")
_choice("minimum")


@composite
def _clip(s: Source) -> Case:
    low, high = s.pick((-0.75, 0.55), (None, 0.55), (-0.75, None), (None, None))
    reference = (lambda x: np.clip(x, low, high)) if (low, high) != (None, None) else np.asarray
    return Case(lambda x: tm.clip(x, low, high), (s.distinct(s.shape()),), reference)


@composite
def _softmax(s: Source) -> Case:
    x = s.normal(s.shape(1, side=1))
    axis = s.axis(x.ndim)
    return Case(lambda x: tm.softmax(x, axis), (x,), lambda x: np.exp(x) / np.exp(x).sum(axis, keepdims=True))


@composite
def _log_softmax(s: Source) -> Case:
    x = s.normal(s.shape(1, side=1))
    axis = s.axis(x.ndim)
    return Case(lambda x: tm.log_softmax(x, axis), (x,), lambda x: x - logsumexp_of(x, axis, True))


@composite
def _matmul(s: Source) -> Case:
    k, lead = s.side(), s.shape(0, 2)
    ranks = s.pick("vv", "vm", "mv", "mm")
    a = s.normal((k,) if ranks[0] == "v" else (*s.narrowed(lead), s.side(), k))
    b = s.normal((k,) if ranks[1] == "v" else (*s.narrowed(lead), k, s.side()))
    return Case(tm.matmul, (a, b), np.matmul)


@composite
def _dense(s: Source) -> Case:
    tasks, n, i, o = s.side(), s.side(), s.side(), s.side()
    w = s.normal((s.pick(1, tasks), i, o))
    b = (s.normal((s.pick(1, tasks), 1, o)),) if s.pick(True, False) else ()
    x = s.normal((s.pick(1, tasks), n, i))
    return Case(tm.dense, (x, w, *b), lambda x, w, b=0: np.matmul(x, w) + b)


@composite
def _stack(s: Source) -> Case:
    shape = s.shape()
    axis = s.axis(len(shape) + 1)
    parts = tuple(s.normal(shape) for _ in range(s.integer(1, 3)))
    return Case(lambda *xs: tm.stack(xs, axis), parts, lambda *xs: np.stack(xs, axis))


@composite
def _pad(s: Source) -> Case:
    x = s.normal(s.shape())
    widths = [(s.integer(0, 2), s.integer(0, 2)) for _ in x.shape]
    return Case(lambda x: tm.pad(x, widths), (x,), lambda x: np.pad(x, widths) if x.ndim else x)


@composite
def _take(s: Source) -> Case:
    x = s.normal(s.shape(1, side=1))
    axis = s.axis(x.ndim)
    n = x.shape[axis]
    indices = s.rng.integers(-n, n, s.pick((), (3,), (2, 2), (0,)))
    return Case(lambda x: tm.take(x, indices, axis), (x,), lambda x: np.take(x, indices, axis))


@composite
def _take_along_axis(s: Source) -> Case:
    x = s.normal(s.shape(1, side=1))
    axis = s.axis(x.ndim)
    shape = list(x.shape)
    shape[axis] = s.side()
    found = s.rng.integers(0, x.shape[axis], shape)
    return Case(lambda x: tm.take_along_axis(x, found, axis), (x,), lambda x: np.take_along_axis(x, found, axis))


@composite
def _squeeze(s: Source) -> Case:
    x = s.normal(s.shape())
    ones = [i for i, n in enumerate(x.shape) if n == 1]
    axis = s.pick(None, tuple(ones), *ones, *[i - x.ndim for i in ones])
    return Case(lambda x: tm.squeeze(x, axis), (x,), lambda x: np.squeeze(x, axis))


@composite
def _expand_dims(s: Source) -> Case:
    x = s.normal(s.shape())
    axis = s.axis(x.ndim + 1)
    return Case(lambda x: tm.expand_dims(x, axis), (x,), lambda x: np.expand_dims(x, axis))


@composite
def _swapaxes(s: Source) -> Case:
    x = s.normal(s.shape(1))
    i, j = s.axis(x.ndim), s.axis(x.ndim)
    return Case(lambda x: tm.swapaxes(x, i, j), (x,), lambda x: x.swapaxes(i, j))


@composite
def power_by_number(s: Source) -> Case:
    exponent = s.pick(0, 1, 2, -1, 0.5, 3, 0.0, 1.0)
    return Case(lambda x: x**exponent, (tm.Tensor(s.positive(s.shape())).data,), lambda x: x**exponent)


@composite
def number_to_the_power(s: Source) -> Case:
    return Case(lambda x: 2.0**x, (s.normal(s.shape()),), lambda x: x.dtype.type(2) ** x)


@composite
def square_of_negative(s: Source) -> Case:
    exponent = s.pick(0, 1, 2, 3, -1)
    return Case(lambda x: tm.power(x, exponent), (s.away(s.shape()),), lambda x: x**exponent)


@composite
def _softmax_cross_entropy(s: Source) -> Case:
    tasks, n, classes = s.side(), s.side(1), s.side(1)
    labels = s.rng.integers(0, classes, (tasks, n))

    def reference(x: Any, labels: Any) -> Any:
        logp = x - logsumexp_of(x, -1, True)
        return -np.take_along_axis(logp, labels[..., None], -1)[..., 0].mean(1)

    return Case(tm.softmax_cross_entropy, (s.normal((tasks, n, classes)), labels), reference)


@composite
def _norm(s: Source) -> Case:
    x = s.away(s.shape())
    axis, keep = axes_of(s, x.ndim), s.pick(False, True)
    return Case(lambda x: tm.norm(x, axis, keep), (x,), lambda x: np.sqrt(np.sum(x * x, axis, keepdims=keep)))


@composite
def _elu(s: Source) -> Case:
    alpha = s.pick(1.0, 0.5, 2)
    reference = lambda x: np.where(x > 0, x, x.dtype.type(alpha) * np.expm1(np.minimum(x, 0)))  # noqa: E731
    return Case(lambda x: tm.elu(x, alpha), (s.away(s.shape()),), reference)


@composite
def _dropout(s: Source) -> Case:
    shape, keep = s.shape(), s.pick(0.3, 0.5, 1)
    uniform = s.rng.uniform(size=s.narrowed(shape)).astype(s.pick(np.float32, np.float64))
    kept = uniform < keep
    given = s.pick(uniform, kept)
    # The numbers that are drawn are no variables: they are closed over.
    return Case(
        lambda x: tm.dropout(x, given, keep),
        (s.normal(shape),),
        lambda x: np.where(kept, x * s.dtype.type(1 / keep), 0),
    )


@composite
def _top_k(s: Source) -> Case:
    x = s.distinct(s.shape(1))
    axis = s.axis(x.ndim)
    k = s.integer(0, x.shape[axis])

    def reference(x: Any) -> Any:
        places = np.take(np.argsort(-x, axis), range(k), axis)
        return np.take_along_axis(x, places, axis), places

    return Case(lambda x: tm.top_k(x, k, axis), (x,), reference)


def _two_sets(s: Source) -> tuple[Any, Any]:
    lead, size = s.shape(0, 2), s.side()
    shapes = [(*s.narrowed(lead), s.side(), size) for _ in range(2)]
    # Not short: derivatives of what is divided by the length grow with 1 / length.
    one, other = (np.sign(x) + x for x in (s.away(shape) for shape in shapes))
    return one, other


@composite
def _cosine_similarity(s: Source) -> Case:
    def unit(x: Any) -> Any:
        return x / np.sqrt(np.maximum((x * x).sum(-1, keepdims=True), 1e-16)).astype(x.dtype)

    return Case(tm.cosine_similarity, _two_sets(s), lambda x, y: np.matmul(unit(x), unit(y).swapaxes(-1, -2)))


@composite
def _pairwise_squared_distances(s: Source) -> Case:
    return Case(
        tm.pairwise_squared_distances,
        _two_sets(s),
        lambda x, y: ((x[..., :, None, :].astype(np.float64) - y[..., None, :, :]) ** 2).sum(-1),
    )


@composite
def _attention(s: Source) -> Case:
    lead, n, m, d = s.shape(0, 2), s.side(), s.side(1), s.side()
    queries, keys = s.normal((*s.narrowed(lead), n, d)), s.normal((*s.narrowed(lead), m, d))
    values = s.normal((*s.narrowed(lead), m, s.side()))
    full = np.broadcast_shapes(queries.shape[:-2], keys.shape[:-2])
    mask = s.pick(None, s.rng.uniform(size=s.narrowed((*full, n, m))) < 0.6)

    def reference(queries: Any, keys: Any, values: Any) -> Any:
        weights = np.exp(np.matmul(queries, keys.swapaxes(-1, -2)) / np.sqrt(s.dtype.type(max(d, 1))))
        weights = weights if mask is None else np.where(mask, weights, 0)
        total = weights.sum(-1, keepdims=True)
        return np.matmul(weights / np.where(total > 0, total, 1), values)

    return Case(lambda *xs: tm.attention(*xs, mask), (queries, keys, values), reference)


EINSUMS = (
    "tnd,tdk->tnk", "tnd,tmd->tnm", "tnd,tnd->tn", "tnd,t->ntd", "tn,tm->tmn", "tn,tm,tnm->t", "tij->jt", "tij->t",
    "->", "ij,jk,kl->li", "tabc,tbcd->tad", "nta,amt->mtn", "i,i->", "t,tnd->nd", "ta,tb->b",
)  # fmt: skip


@composite
def _einsum(s: Source) -> Case:
    subscripts = s.pick(*EINSUMS)
    inputs = subscripts.partition("->")[0].split(",")
    lengths = {label: s.side() for label in sorted(set("".join(inputs)))}
    arrays = [s.normal(tuple(s.pick(lengths[a], lengths[a], 1) if a == "t" else lengths[a] for a in i)) for i in inputs]
    return Case(
        lambda *xs: tm.einsum(subscripts, *xs), tuple(arrays), lambda *xs: np.asarray(np.einsum(subscripts, *xs))
    )


@composite
def _sigmoid_cross_entropy(s: Source) -> Case:
    shape = (s.side(), s.side(1), *s.shape(0, 1, side=1))
    targets = s.rng.uniform(size=shape).astype(s.dtype)

    def reference(z: Any, t: Any) -> Any:
        losses = -t * np.log(1 / (1 + np.exp(-z))) - (1 - t) * np.log(1 / (1 + np.exp(z)))
        return losses.reshape(len(z), -1).mean(1) if len(z) else np.zeros(0, z.dtype)

    return Case(tm.sigmoid_cross_entropy, (s.normal(shape), targets), reference)


@composite
def methods_and_operators(s: Source) -> Case:
    """What a tensor's own syntax does."""
    x, w = s.distinct((2, 3)), s.positive((3,))

    def ours(x: Any, w: Any) -> Any:
        y = abs(-x * 2 + 1 - w) / w + (3.0 - x) @ x.T @ x
        return {"a": y.sum(0), "b": [y.mean(1, keepdims=True), y.max()], "c": (y.reshape(3, -1), y.T[1:], None)}

    def theirs(x: Any, w: Any) -> Any:
        y = abs(-x * 2 + 1 - w) / w + (3 - x) @ x.T @ x
        return (y.sum(0), y.mean(1, keepdims=True), y.max(), y.reshape(3, -1), y.T[1:])

    return Case(ours, (x, w), theirs)
