"""What is refused, and that the errors say why and name the argument."""

import numpy as np
import pytest

import tinymaml as tm

RNG = np.random.default_rng(5)
X = RNG.normal(size=4)
A = RNG.normal(size=(4, 4))


def test_sweeps_of_constants_raise():
    x = tm.as_tensor(X)
    for sweep in (tm.pull, tm.push):
        with pytest.raises(ValueError, match="an input of a sweep is a constant"):
            sweep([x], [x], [x])


def test_inputs_are_independent_variables():
    x = tm.Tensor(2.0)
    y = x * x
    z = y * x
    dx, dy = tm.pull([z], [x, y], [tm.ones_like(z)])
    assert (dx.item(), dy.item()) == (4.0, 2.0)
    assert tm.pull([z], [y], [None]) == [None]
    assert tm.pull([x], [y], [x]) == [None]
    assert tm.push([y, x], [x], [tm.ones_like(x)])[1].item() == 1.0


def test_nothing_is_changed_in_place():
    x = tm.Tensor(X.copy())
    with pytest.raises(TypeError, match="never changed in place; use where"):
        x[0] = 1.0
    for write in (lambda: x.numpy().fill(0), lambda: np.asarray(x).fill(0)):
        with pytest.raises(ValueError, match="read-only"):
            write()
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.add(X, X, out=x)
    y = x
    y += 1.0  # a new tensor: x is as it was
    assert x.data.tolist() == X.tolist()
    parts = tm.grad(lambda x: tm.sum(x))(X)
    parts += 1.0  # results are the caller's own


ERRORS = {
    "the function to differentiate must return one number, got shape .4,.; take sum": lambda: tm.grad(lambda x: x)(X),
    "the function to differentiate must return a floating number, got bool": lambda: tm.grad(lambda x: x > 0)(1.0),
    "expected a tensor, an array or a number, got NoneType": lambda: tm.grad(lambda x: None)(1.0),
    "expected a tensor, an array or a number, got dict": lambda: tm.grad(lambda x: {"a": x})(1.0),
    "argnums 1 does not fit a call with 1 positional": lambda: tm.grad(lambda x: x, 1)(1.0),
    "unknown mode 'sideways'; one of forward-over-reverse, ": lambda: tm.hvp(tm.sum, X, X, mode="sideways"),
    "v: expected .4,. float64, got .3,. float64": lambda: tm.hvp(tm.sum, X, X[:3]),
    "v has another structure than expected: at the top": lambda: tm.hvp(lambda p: tm.sum(p["a"]), {"a": X}, [X]),
    "the cotangent: expected .4,. float64, got .2,.": lambda: tm.vjp(tm.tanh, X)[1](X[:2]),
    "jvp: primals and tangents are sequences": lambda: tm.jvp(tm.tanh, 1.0, 1.0),
    "params has no leaves": lambda: tm.hvp(lambda p: 1.0, {}, {}),
    "add: shapes .4,., .3,. do not broadcast together": lambda: tm.Tensor(X) + X[:3],
    "add: input 1 is a NoneType, expected a tensor": lambda: tm.Tensor(X) + None,
    "add: input 1 is a str, expected a tensor": lambda: tm.Tensor(X) + "a",
    "multiply: input 0 is a dict, expected a tensor": lambda: tm.multiply({}, tm.Tensor(X)),
    "matrix product: .4, 4. and .3, 3. do not fit: 4 is not 3": lambda: tm.matmul(tm.Tensor(A), A[:3, :3]),
    "matrix product: .4,. and .4, 4. need two axes": lambda: tm.linear(X, A),
    "matmul: a number is not a matrix": lambda: tm.matmul(tm.Tensor(1.0), A),
    "dense: w needs three axes, .* got .4, 4.": lambda: tm.dense(X.reshape(1, 1, 4), A),
    "dense: w is for 3 tasks, x for 2": lambda: tm.dense(np.ones((2, 1, 4)), np.ones((3, 4, 4))),
    "mse: prediction .4,. and target .3,. must have one shape": lambda: tm.mse(X, X[:3]),
    "mse: no examples in .2, 0.": lambda: tm.mse(np.ones((2, 0)), np.ones((2, 0))),
    "labels must be integers, got float64": lambda: tm.softmax_cross_entropy(np.ones((1, 1, 2)), np.ones((1, 1))),
    "labels must be in .0, 2., got 2 to 2": lambda: tm.softmax_cross_entropy(np.ones((1, 1, 2)), np.array([[2]])),
    "sum: axis 1 is out of range for 1 axes": lambda: tm.sum(X, 1),
    "sum: an axis is named twice": lambda: tm.sum(A, (0, -2)),
    "mean: no elements": lambda: tm.mean(np.ones((0, 2)), 0),
    "max: no elements": lambda: tm.max(np.ones((0, 2)), 0),
    "logsumexp: no elements": lambda: tm.logsumexp(np.ones((0, 2)), 0),
    "reshape: .4,. has 4 elements, which do not fit": lambda: tm.reshape(X, (3, -1)),
    "transpose: axes .0, 0. are not an order": lambda: tm.transpose(A, (0, 0)),
    "broadcast_to: .4,. does not broadcast to .3,.": lambda: tm.broadcast_to(X, (3,)),
    "squeeze: axes 0 of .4,. are not all of length 1": lambda: tm.squeeze(X, 0),
    "concatenate: .4,. and .4, 4. differ": lambda: tm.concatenate([A, X]),
    "concatenate: at least one tensor": lambda: tm.stack([]),
    "pad: expected .before, after. >= 0": lambda: tm.pad(X, [(1, -1)]),
    "take: indices must be integers, got float64": lambda: tm.take(X, np.ones(2), 0),
    "an index must be of integers or masks, got float64": lambda: tm.Tensor(X)[np.ones(2)],
    "an index must be of integers or masks, got bool of shape ..": lambda: tm.Tensor(X)[True],
    "boolean index did not match": lambda: tm.Tensor(X)[np.array([True, False, True])],
    "index 9 is out of bounds": lambda: tm.Tensor(X)[[9]],
    "clip: the lower bound 2 is above the upper": lambda: tm.clip(X, 2, 1),
    "a tensor without axes has no length": lambda: len(tm.Tensor(1.0)),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors_say_what_is_wrong(message):
    with pytest.raises((TypeError, ValueError, IndexError), match=message):
        ERRORS[message]()


def test_looks():
    assert repr(tm.Tensor([1.0, 2.0])) == "Tensor([1. 2.], dtype=float64, variable)"
    assert repr(tm.as_tensor(1.5)) == "Tensor(1.5, dtype=float64, constant)"
    assert repr(tm.Tensor(1.0) + 1) == "Tensor(2., dtype=float64, add)"
    x = tm.Tensor(A)
    assert (len(x), x.ndim, x.size, x.T.shape) == (4, 2, 16, (4, 4))
    assert float(x[0, 0]) == A[0, 0]
    assert bool(x[0, 0] == A[0, 0])
    assert [row.data.tolist() for row in x] == A.tolist()
    assert np.array(x, copy=True).flags.writeable
