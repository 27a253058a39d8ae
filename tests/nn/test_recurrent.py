"""Recurrent networks: their values are those of a loop in NumPy, their derivatives are right, with any weights."""

import numpy as np
import pytest

import tinymaml as tm
from tinymaml import nn

MAKERS = {"rnn": nn.rnn, "lstm": nn.lstm, "gru": nn.gru}


def drawn(name, tasks=2, count=3, length=4, inputs=2, hidden=3, outputs=2, own=False):
    """A network, its parameters away from where they start, per task if `own`, and sequences."""
    rng = np.random.default_rng(0)
    model = MAKERS[name](inputs, hidden, outputs)
    params = model.init(rng, np.float64)
    size = tasks if own else 1
    params = tm.tree.map(lambda p: p + 0.3 * rng.standard_normal((size, *p.shape[1:])), params)
    return model, params, rng.standard_normal((tasks, count, length, inputs))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loop(name, params, x):
    """The same, one task, sequence and step at a time."""
    tasks, count, length, _ = x.shape
    result = np.zeros((tasks, count, length, params["head"]["w"].shape[-1]))
    for t in range(tasks):
        w, u, b, v, d = (
            p[t if len(p) > 1 else 0]
            for p in (params["w"], params["u"], params["b"], params["head"]["w"], params["head"]["b"])
        )
        for n in range(count):
            h, c = np.zeros(len(u)), np.zeros(len(u))
            for step in range(length):
                gates = x[t, n, step] @ w + h @ u + b[0]
                if name == "rnn":
                    h = np.tanh(gates)
                elif name == "gru":
                    (r, z, new), again = np.split(x[t, n, step] @ w + b[0], 3), np.split(h @ u, 3)
                    r, z = sigmoid(r + again[0]), sigmoid(z + again[1])
                    h = (1 - z) * np.tanh(new + r * again[2]) + z * h
                else:
                    i, f, o, g = np.split(gates, 4)
                    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                    h = sigmoid(o) * np.tanh(c)
                result[t, n, step] = h @ v + d[0]
    return result


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("length", [1, 4])
def test_as_a_loop_in_numpy(name, own, length):
    model, params, x = drawn(name, length=length, own=own)
    np.testing.assert_allclose(model.apply(params, x).numpy(), loop(name, params, x), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_derivatives(name, own):
    model, params, x = drawn(name, count=2, length=3, own=own)
    leaves, structure = tm.tree.flatten(params)
    tm.testing.check_derivatives(lambda x, *leaves: model.apply(tm.tree.unflatten(structure, leaves), x), x, *leaves)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_one_step_after_another_is_the_scan(name, own):
    model, params, x = drawn(name, own=own)
    state, states = None, []
    for t in range(x.shape[2]):
        state = getattr(nn, f"{name}_step")(params, x[:, :, t], state)
        states.append(state[0] if name == "lstm" else state)
    outputs = [tm.dense(h, params["head"]["w"], params["head"]["b"]) for h in states]
    np.testing.assert_allclose(tm.stack(outputs, 2).numpy(), model.apply(params, x).numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", MAKERS)
def test_the_recorded_meta_gradient_is_the_eager_one(name):
    model, params, x = drawn(name)
    y = np.cumsum(x, 2)[..., :2]
    batch = {"x": x, "y": y}

    def step(params, batch):
        def loss(params, batch):
            return tm.mse(model.apply(params, batch["x"]), batch["y"])

        return tm.meta_value_and_grad(loss, params, batch, batch, 0.1, 2)

    eager, recorded = step(params, batch), tm.record(step, params, batch)(params, batch)
    for one, other in zip(tm.tree.leaves(eager), tm.tree.leaves(recorded), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_what_they_start_from():
    params = nn.lstm(2, 5, 1).init(np.random.default_rng(0))
    assert {name: p.shape for name, p in params.items() if name != "head"} == {
        "w": (1, 2, 20),
        "u": (1, 5, 20),
        "b": (1, 1, 20),
    }
    np.testing.assert_array_equal(params["b"].reshape(4, 5), np.repeat([[0], [1], [0], [0]], 5, 1))
    for u in np.split(params["u"][0], 4, 1):
        np.testing.assert_allclose(u @ u.T, np.eye(5), atol=1e-6)
    assert {p.dtype for p in tm.tree.leaves(params)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("sizes", [(0, 3, 1), (2, -1, 1), (2, 3, 1.5)])
def test_sizes_are_whole_numbers(name, sizes):
    with pytest.raises(ValueError, match=f"{name}: .* must be a whole number >= 1"):
        MAKERS[name](*sizes)


@pytest.mark.parametrize("shape", [(2, 3, 2), (2, 3, 4, 3), (2, 3, 0, 2)])
def test_sequences_have_a_shape(shape):
    model, params, _ = drawn("lstm")
    with pytest.raises(ValueError, match=r"lstm: x must be \[T, N, L, 2\], sequences of one step or more, got"):
        model.apply(params, np.zeros(shape))
