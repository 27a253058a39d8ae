"""Bad input: each has an error that names the argument, and the place in it."""

import re
from typing import Any

import numpy as np
import pytest

import tinymaml as tm
from tests.cases.maml_cases import Problem, problem

ALPHA = 0.1
P = problem(0)  # 3 tasks, params[0..1]['w' | 'b']
W = P.params[0]["w"]


def changed(path, value, given: Any):
    """A copy of nested containers with the entry at a path replaced (or taken out: value None)."""
    if not path:
        return value
    key, *rest = path
    copy = dict(given) if isinstance(given, dict) else list(given)
    if value is None and not rest:
        del copy[key]
    else:
        copy[key] = changed(rest, value, given[key])
    return copy


def raises(kind, message, **settings):
    """Both functions refuse, with the same words; what only one of them takes is asked of that one."""
    arguments = {**P._asdict(), "alpha": ALPHA, "steps": 2, **settings}
    with pytest.raises(kind, match=message):
        tm.meta_value_and_grad(**arguments)
    names = ("loss", "params", "support", "alpha", "steps", "adapted")
    if set(settings) <= set(names):
        with pytest.raises(kind, match=message):
            tm.adapt(**{name: value for name, value in arguments.items() if name in names})


# params


@pytest.mark.parametrize("params", [[], {}, None, [None, {}]])
def test_no_parameters(params):
    raises(ValueError, "^params has no arrays", params=params)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.bool_, np.float16, np.complex128])
def test_parameters_of_another_dtype(dtype):
    kind = np.dtype(dtype)
    message = "must be an array or a number" if kind.kind == "c" else f"is {kind}: gradients are taken of float32 or"
    for place, name in (([0, "w"], r"params\[0\]\['w'\]"), ([1, "b"], r"params\[1\]\['b'\]")):
        params = changed(place, np.ones((1, 1, 1), dtype), P.params)
        raises(TypeError, f"^{name} {message}", params=params)


def test_mixed_dtypes():
    raises(
        TypeError,
        r"^params\[1\]\['w'\] is float32, the first parameter float64: all must have one dtype",
        params=changed([1, "w"], P.params[1]["w"].astype(np.float32), P.params),
    )


@pytest.mark.parametrize("value", ["text", object(), 1j])
def test_parameters_that_are_no_numbers(value):
    raises(TypeError, r"^params\[0\]\['w'\] must be an array or a number", params=changed([0, "w"], value, P.params))
    raises(TypeError, "^params must be an array or a number", params=value)


@pytest.mark.parametrize("shape", [(), (2, 2, 3), (4, 2, 3), (0, 2, 3)])
def test_the_task_axis_of_parameters(shape):
    message = (
        rf"^params\[0\]\['w'\] has shape {re.escape(str(shape))}: its first axis is the task axis, of length 1 .*or 3"
    )
    raises(ValueError, message, params=changed([0, "w"], np.ones(shape), P.params))
    raises(ValueError, r"^params has shape \(2,\): its first axis is the task axis", params=np.ones(2))


# support and query


@pytest.mark.parametrize("name", ["support", "query"])
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, " has no arrays"),
        ({"x": 3.0, "y": 2.0}, r"\['x'\] needs a task axis: an array \[T, ...\] is expected, got 3.0"),
        ({"x": np.ones((3, 4, 2)), "y": np.float64(1)}, r"\['y'\] needs a task axis"),
        ({"x": np.ones((3, 0, 2)), "y": np.ones((3, 0, 1))}, r"\['x'\] is without examples: its shape is \(3, 0, 2\)"),
        ({"x": np.ones((0, 4, 2)), "y": np.ones((0, 4, 1))}, r"\['x'\] is without examples"),
        ({"x": np.ones((3, 4, 2)), "y": np.ones((2, 4, 1))}, r"\['y'\] has 2 tasks, but {name}\['x'\] has 3"),
        (np.ones((3, 0)), " is without examples"),
    ],
    ids=str,
)
def test_batches(name, batch, message):
    raises(ValueError, "^" + name + message.replace("{name}", name), **{name: batch})


def test_another_number_of_tasks_in_the_query_set():
    query = tm.tree.map(lambda x: x[:2], P.query)
    raises(ValueError, "^query has 2 tasks, support has 3: the tasks must be the same", query=query)


# the loss


@pytest.mark.parametrize("loss", [None, 3.0, "mse"])
def test_a_loss_that_is_no_function(loss):
    raises(TypeError, r"^loss must be a function loss\(params, batch\)", loss=loss)


@pytest.mark.parametrize(
    ("result", "kind"),
    [(np.ones(3), "ndarray"), (1.0, "float"), (None, "NoneType"), ((tm.Tensor(1.0),), "tuple")],
)
def test_a_loss_that_returns_no_tensor(result, kind):
    raises(TypeError, f"^loss must return a Tensor, made by tinymaml's functions, got {kind}", loss=lambda p, b: result)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1)])
def test_a_loss_of_another_shape(shape):
    def loss(params, batch):
        return tm.broadcast_to(tm.sum(params[0]["w"]), shape)

    message = r"^loss must return one number a task, shape \(3,\), as mse does; on support it returned shape"
    raises(ValueError, f"{message} {re.escape(str(shape))}", loss=loss)


def test_a_loss_of_another_shape_on_the_query_set():
    def loss(params, batch):
        results = P.loss(params, batch)
        return results if batch is P.support else tm.mean(results)

    raises(ValueError, r"^loss must return .*; on query it returned shape \(\)", loss=loss, query=P.query)


def test_a_parameter_that_the_loss_never_uses():
    params = [*P.params, np.ones((1, 4))]

    def loss(params, batch):
        return P.loss(params[:2], batch)

    again = r"^params\[2\] is never used by the"
    raises(ValueError, f"{again} support loss: take it out of params, or out of adapted", loss=loss, params=params)
    for settings in ({"steps": 0}, {"adapted": [True, True, False]}):
        with pytest.raises(ValueError, match=f"{again} query loss: take it out of params"):
            tm.meta_value_and_grad(loss, params, P.support, P.query, ALPHA, **{"steps": 2, **settings})


def test_a_loss_that_uses_no_parameter():
    raises(
        ValueError, r"^params\[0\]\['b'\] is never used by the support loss", loss=lambda p, b: tm.mse(b["y"], b["y"])
    )


def test_first_order_does_not_see_what_only_the_support_loss_uses():
    scale = np.ones((1, 1, 1))

    def loss(params, batch):
        results = P.loss(params["net"], batch)
        return results if batch is P.query else results * tm.reshape(params["scale"], (-1,))

    arguments = (loss, {"net": P.params, "scale": scale}, P.support, P.query, ALPHA, 2)
    message = (
        r"^params\['scale'\] is never used by the query loss, and order=1 leaves out what the support loss makes of it"
    )
    with pytest.raises(ValueError, match=message):
        tm.meta_value_and_grad(*arguments, order=1)
    assert tm.meta_value_and_grad(*arguments)[1]["scale"].item() != 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["support", "query"])
def test_data_that_is_not_finite(name, bad):
    batch = tm.tree.map(np.copy, getattr(P, name))
    batch["y"][1, 0, 0] = bad
    what = "support loss at inner step 0" if name == "support" else "query loss"
    raises(tm.NonFiniteError, rf"^the {what} is not finite \(tasks 1\): look for a NaN in the data", **{name: batch})
    with pytest.raises(tm.NonFiniteError) as caught:
        tm.meta_value_and_grad(*P._replace(**{name: batch}), ALPHA, 2)
    assert caught.value.tasks == [1]
    assert isinstance(caught.value, ArithmeticError)


def test_parameters_that_are_not_finite():
    params = changed([0, "w"], np.full(W.shape, np.nan), P.params)
    raises(tm.NonFiniteError, r"^the support loss at inner step 0 is not finite \(tasks 0, 1, 2\)", params=params)
    raises(tm.NonFiniteError, r"^the query loss is not finite", params=params, query=P.query, steps=0)


def test_many_tasks_that_are_not_finite():
    p = problem(0, tasks=8)
    support = {**p.support, "y": np.full_like(p.support["y"], np.nan)}
    with pytest.raises(tm.NonFiniteError, match=r"\(tasks 0, 1, 2, 3, 4, \.\.\.\)") as caught:
        tm.adapt(p.loss, p.params, support, ALPHA, 1)
    assert caught.value.tasks == list(range(8))


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")  # NumPy's, on the way to infinity
def test_divergence_names_the_inner_step():
    def loss(w, batch):
        return tm.mean((w * batch) ** 4, axis=1)

    w, x = np.full((1, 1), 2.0), np.ones((2, 1))
    with pytest.raises(tm.NonFiniteError, match=r"^the support loss at inner step [1-9]\d* is not finite"):
        tm.adapt(loss, w, x, 10.0, 20)
    with pytest.raises(tm.NonFiniteError, match=r"take a smaller alpha or learning rate$"):
        tm.meta_value_and_grad(loss, w, x, x, 10.0, 20)


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_a_gradient_that_is_not_finite_where_the_loss_is():
    """The square root of 0 is 0, with an infinite slope."""

    def loss(params, batch):
        return tm.sum(tm.sqrt(params["w"]) * batch, axis=1) + tm.sum(params["v"] * batch, axis=1)

    params = {"v": np.ones((1, 1)), "w": np.zeros((1, 1))}
    x = np.ones((2, 1))
    with pytest.raises(tm.NonFiniteError, match=r"^the adapted params\['w'\] is not finite \(tasks 0, 1\)"):
        tm.adapt(loss, params, x, ALPHA, 1)
    with pytest.raises(tm.NonFiniteError, match=r"^the meta-gradient by params\['w'\] is not finite: look for"):
        tm.meta_value_and_grad(loss, params, x, x, ALPHA, 0)
    for clip in ({"clip_norm": 1.0}, {"clip_element": 1.0}):
        with pytest.raises(tm.NonFiniteError, match=r"^the meta-gradient by params\['w'\]"):
            tm.meta_value_and_grad(loss, params, x, x, ALPHA, 0, **clip)


# alpha


@pytest.mark.parametrize("alpha", [0, 0.0, -0.1, np.nan, np.inf, -np.inf])
def test_step_sizes_that_are_not_positive(alpha):
    raises(ValueError, r"^alpha for params\[0\]\['b'\] must be positive, got", alpha=alpha)
    raises(ValueError, r"^alpha for params\[1\]\['w'\] must be positive", alpha=[0.1, {"w": alpha, "b": 0.1}])


def test_learned_step_sizes_may_have_any_sign_but_must_be_finite():
    tm.meta_value_and_grad(*P, -0.1, 1, learn_alpha=True)
    rates = tm.tree.map(lambda x: np.full(x.shape, -0.1), P.params)
    tm.adapt(*P[:3], rates, 1)
    rates[1]["b"][:] = np.nan
    raises(ValueError, r"^alpha for params\[1\]\['b'\] must be finite, got nan", alpha=rates)
    raises(ValueError, r"^alpha for params\[0\]\['b'\] must be finite", alpha=np.nan, learn_alpha=True)


@pytest.mark.parametrize("alpha", ["0.1", object(), 1j])
def test_step_sizes_that_are_no_numbers(alpha):
    raises(TypeError, "^alpha must be an array or a number, got", alpha=alpha)
    raises(TypeError, r"^alpha\[1\] must be an array or a number, got", alpha=[0.1, alpha])


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_step_sizes_of_another_dtype(dtype):
    raises(
        TypeError,
        rf"^alpha for params\[1\]\['b'\] is {np.dtype(dtype)}, the parameter float64: they must have one dtype",
        alpha=[0.1, np.ones((), dtype)],
    )


@pytest.mark.parametrize("shape", [(2,), (2, 1, 1), (4, 1, 1), (1, 1, 1, 1), (0,)])
def test_step_sizes_that_do_not_broadcast(shape):
    raises(
        ValueError,
        rf"^alpha for params\[0\]\['b'\] has shape {re.escape(str(shape))}, which does not broadcast to \(3, 1, 3\)",
        alpha=[np.ones(shape), 0.1],
    )


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        ([0.1], r"^alpha does not fit the parameters: expected list with keys \[0, 1\] or one value for all of it"),
        ([0.1, {"w": 0.1}], r"^alpha\[1\] does not fit .* expected dict with keys \['b', 'w'\].* got dict .*\['w'\]"),
        ([0.1, {"w": [0.1], "b": 0.1}], r"^alpha\[1\]\['w'\] does not fit the parameters: expected a leaf, got list"),
        ((0.1, 0.1), "^alpha does not fit .* got tuple"),
        (None, "^alpha does not fit .* got None"),
    ],
    ids=str,
)
def test_another_structure_of_alpha(alpha, message):
    raises(ValueError, message, alpha=alpha)


# the rest


@pytest.mark.parametrize("steps", [-1, 1.0, 2.5, True, "2", None])
def test_steps(steps):
    raises(ValueError, f"^steps must be a whole number >= 0, got {re.escape(repr(steps))}", steps=steps)


@pytest.mark.parametrize(
    ("adapted", "kind", "message"),
    [
        (False, ValueError, "^adapted selects no parameter: at least one must be adapted"),
        ([False, False], ValueError, "^adapted selects no parameter"),
        (1, TypeError, "^adapted must hold booleans, one for a parameter or for a branch of them, got 1"),
        ([True, "yes"], TypeError, "^adapted must hold booleans"),
        ([True], ValueError, "^adapted does not fit the parameters: expected list"),
        ([True, {"w": True}], ValueError, r"^adapted\[1\] does not fit the parameters: expected dict"),
    ],
    ids=str,
)
def test_adapted(adapted, kind, message):
    raises(kind, message, adapted=adapted)


@pytest.mark.parametrize("order", [0, 3, None, "2", -1, 1.5])
def test_order(order):
    raises(ValueError, "^order must be 1 or 2, got", order=order)


@pytest.mark.parametrize("mode", ["forward", None, 2])
def test_mode(mode):
    raises(ValueError, "^mode must be one of forward-over-reverse, reverse-over-reverse, .*, got", mode=mode)


@pytest.mark.parametrize("records", ["kept", None, True])
def test_records(records):
    raises(ValueError, "^records must be 'keep' or 'recompute', got", records=records)


@pytest.mark.parametrize("name", ["clip_element", "clip_norm"])
@pytest.mark.parametrize("bound", [0, -1.0, np.nan, "1", [1.0]])
def test_clipping(name, bound):
    raises(ValueError, f"^{name} must be a positive number or None, got", **{name: bound})


def test_data_of_another_dtype_is_refused_where_it_meets_the_parameters():
    support = {**P.support, "x": P.support["x"].astype(np.float32)}
    raises(TypeError, "is float64 and another is float32; dtypes are never mixed", support=support)


def test_the_errors_are_not_in_the_way():
    """What all these change one thing of."""
    value, _ = tm.meta_value_and_grad(*Problem(*P), ALPHA, 2)
    assert np.isfinite(value)
