"""What a transform returns is the caller's own: writing to it changes no other result, no argument and no record."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinymaml as tm
from tinymaml.transforms import MODES

A, B = np.array([0.5, -1.0, 2.0]), np.array([1.5, 0.25, -0.5])


def both(p: Any) -> Any:
    return tm.sum(tm.exp(p["a"] + p["b"]))


def linear(p: Any) -> Any:
    return tm.sum(p["a"] + p["b"])


def given() -> Any:
    return {"a": A.copy(), "b": B.copy()}


def kept(p: Any, memo: list[Any] = []) -> Any:  # noqa: B006  # what a user keeps between calls
    """A number made before the derivative is taken."""
    if not memo:
        memo.append(tm.sum(tm.as_tensor(A) * 2.0))
    return memo[0]


CASES: dict[str, Callable[[Any], Any]] = {
    "grad": lambda p: tm.grad(both)(p),
    "grad, linear": lambda p: tm.grad(linear)(p),
    "value_and_grad": lambda p: tm.value_and_grad(both)(p),
    "value_and_grad of a number": lambda p: tm.value_and_grad(lambda x: x)(p["a"][0]),
    "value_and_grad of what was there": lambda p: tm.value_and_grad(kept)(p),
    "grad by two": lambda p: tm.grad(lambda a, b: tm.sum(tm.exp(a + b)), (0, 1))(p["a"], p["b"]),
    "grad of the same array twice": lambda p: tm.grad(both)({"a": p["a"], "b": p["a"]}),
    "jvp, identity": lambda p: tm.jvp(lambda x: x, (p,), (tm.tree.map(np.ones_like, p),)),
    "jvp, add": lambda p: tm.jvp(lambda x: {"c": x["a"] + x["b"], "d": x["a"]}, (p,), (p,)),
    "jvp, a constant": lambda p: tm.jvp(lambda x: [x["a"], tm.as_tensor(A), x["a"]], (p,), (p,)),
    "jvp, the same twice": lambda p: tm.jvp(lambda x: (lambda y: [y, y])(tm.exp(x["a"])), (p,), (p,)),
    "hessian": lambda p: tm.hessian(both, p),
    **{f"hvp, {mode}": lambda p, mode=mode: tm.hvp(both, p, p, mode=mode) for mode in MODES},
    **{f"hvp, linear, {mode}": lambda p, mode=mode: tm.hvp(linear, p, p, mode=mode) for mode in MODES},
    "meta_value_and_grad": lambda p: tm.meta_value_and_grad(tied, p, A[:, None], B[:, None], 0.1, 1),
    "first order": lambda p: tm.meta_value_and_grad(tied, p, A[:, None], B[:, None], 0.1, 1, order=1),
    "one task": lambda p: tm.meta_value_and_grad(tied, first(p), A[:1, None], B[:1, None], 0.1, 1),
    "one task, no steps": lambda p: tm.meta_value_and_grad(tied, first(p), A[:1, None], B[:1, None], 0.1, 0),
    "shared parameters": lambda p: tm.meta_value_and_grad(tied, first(p), A[:, None], B[:, None], 0.1, 1),
    "no steps": lambda p: tm.meta_value_and_grad(tied, p, A[:, None], B[:, None], 0.1, 0),
    "learned alpha": lambda p: tm.meta_value_and_grad(tied, p, A[:, None], B[:, None], p, 1, learn_alpha=True),
    "adapt": lambda p: tm.adapt(tied, p, A[:, None], 0.1, 1),
    "adapt, none": lambda p: tm.adapt(tied, p, A[:, None], 0.1, 0),
    "adapt, one": lambda p: tm.adapt(tied, p, A[:, None], 0.1, 2, adapted={"a": True, "b": False}),
    **{f"optim.{name}": lambda p, make=make: step(make, p) for name, make in {
        "sgd": lambda: tm.optim.sgd(0.1), "momentum": lambda: tm.optim.momentum(0.1, 0.0),
        "nesterov": lambda: tm.optim.momentum(0.1, 0.5, nesterov=True), "adam": tm.optim.adam,
    }.items()},
    "recorded": lambda p: tm.record(lambda x: [x, x, tm.as_tensor(A), tm.grad(both)(x)], p)(p),
    "recorded, the same twice": lambda p: tm.record(lambda x: (lambda y: [y, y, y.T])(tm.exp(x["a"])), p)(p),
}  # fmt: skip


def tied(p: Any, batch: Any) -> Any:
    """One number a task, by the sum of the parameters alone."""
    return tm.sum(p["a"][:, None] + p["b"][:, None], axis=1) * batch[:, 0]


def first(p: Any) -> Any:
    return {name: x[:1] for name, x in p.items()}


def step(make: Callable[[], Any], p: Any) -> Any:
    optimiser = make()
    state = optimiser.init(p)
    return optimiser.init(p), optimiser.update(p, state, p), optimiser.update(p, state, p)


def arrays(results: Any) -> list[Any]:
    return [np.asarray(x) for x in tm.tree.leaves(results)]


def check_own(results: Any, *others: Any) -> None:
    actual = arrays(results)
    for x in actual:
        assert x.flags.writeable
    for x, y in itertools.combinations(actual, 2):
        assert not np.shares_memory(x, y)
    for x, y in itertools.product(actual, [*arrays(others), A, B]):
        assert not np.shares_memory(x, y)


@pytest.mark.parametrize("name", CASES)
def test_results_own_their_memory(name):
    p = given()
    check_own(CASES[name](p), p)
    for x, y in zip(arrays(p), arrays(given()), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("function", [lambda x: x["a"] + x["b"], lambda x: tm.exp(x["a"] + x["b"]), lambda x: x["a"]])
def test_a_pullback(function):
    p, cotangent = given(), np.ones(3)
    value, pullback = tm.vjp(function, p)
    first, second = pullback(cotangent), pullback(cotangent)
    check_own([value, first, second], p, cotangent)
    expected = [x.copy() for x in arrays(first)]
    for x in arrays([value, first, second]):
        x *= 100  # as clipping in place does: the record does not see it
    for x, y in zip(arrays(pullback(cotangent)), expected, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_product_with_the_hessian():
    p = given()
    value, grads, product = tm.grad_and_hvp(both, p)
    first, second = product(p), product(p)
    check_own([value, grads, first, second], p)
    expected = [x.copy() for x in arrays(first)]
    for x in arrays([value, grads, first, second]):
        x *= 100
    for x, y in zip(arrays(product(p)), expected, strict=True):
        np.testing.assert_array_equal(x, y)


def test_nothing_is_copied_that_is_not_shared(monkeypatch):
    """A gradient is the array that the last kernel made."""
    made = []
    from tinymaml import transforms

    def pull(*arguments):
        made.extend(results := own(*arguments))
        return results

    own = transforms.pull
    monkeypatch.setattr(transforms, "pull", pull)
    results = tm.grad(lambda x: tm.sum(tm.exp(x)))(A)
    assert results is made[0].data
