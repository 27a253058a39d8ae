"""MAML asks nothing of a model: a network, a function of the user's own and a recurrent network are meta-trained."""

import numpy as np

import tinymaml as tm


def meta_train(loss, params, tasks, alpha, steps, iterations, learning_rate):
    """Loss before adaptation and after it, on the same fresh tasks, at the start of meta-training and at its end."""

    def judge(params):
        support, query = tasks(np.random.default_rng(999), 100)
        phi = tm.adapt(loss, params, support, alpha, steps)
        return float(loss(params, query).data.mean()), float(loss(phi, query).data.mean())

    start = judge(params)
    rng = np.random.default_rng(0)
    optimiser = tm.optim.adam(learning_rate)
    state = optimiser.init(params)
    for _ in range(iterations):
        _, grads = tm.meta_value_and_grad(loss, params, *tasks(rng, 10), alpha, steps)
        params, state = optimiser.update(grads, state, params)
    return start, judge(params)


def sinusoids(rng, count):
    """Support and query sets of 10 points on sine curves, of another amplitude and phase in each task."""
    amplitude, phase = rng.uniform(0.5, 2.0, (count, 1, 1)), rng.uniform(0, np.pi, (count, 1, 1))
    x = rng.uniform(-3, 3, (2, count, 10, 1))
    y = amplitude * np.sin(x + phase)
    return [(x[i].astype(np.float32), y[i].astype(np.float32)) for i in range(2)]


def test_an_mlp():
    model = tm.nn.mlp([1, 32, 32, 1])
    params = model.init(np.random.default_rng(1))

    def loss(params, batch):
        return tm.mse(model.apply(params, batch[0]), batch[1])

    start, (before, after) = meta_train(
        loss, params, sinusoids, alpha=0.01, steps=2, iterations=400, learning_rate=1e-2
    )
    assert after < 0.25 * start[1]
    assert after < 0.25 * before


def test_a_function_of_ones_own():
    """A curve with a handful of parameters, in ten lines."""
    params = {"amplitude": np.ones((1, 1, 1)), "phase": np.zeros((1, 1, 1)), "speed": np.full((1, 1, 1), 0.7)}

    def curve(params, x):
        return params["amplitude"] * tm.sin(params["speed"] * x + params["phase"])

    def loss(params, batch):
        x, y = batch
        return tm.mean((curve(params, x) - y) ** 2, axis=(1, 2))

    def tasks(rng, count):
        return [tuple(array.astype(np.float64) for array in batch) for batch in sinusoids(rng, count)]

    start, (before, after) = meta_train(loss, params, tasks, alpha=0.2, steps=3, iterations=200, learning_rate=2e-2)
    assert after < 0.35 * start[1]
    assert after < 0.35 * before


def test_a_recurrent_network():
    """Each task is a leaky sum of a sequence with a leak of its own; the sequence's last element is to be told."""
    rng = np.random.default_rng(0)
    hidden = 12
    params = {
        "in": rng.normal(0, 0.5, (1, 1, hidden)).astype(np.float32),
        "state": (0.5 * np.eye(hidden) + rng.normal(0, 0.05, (hidden, hidden)))[None].astype(np.float32),
        "out": rng.normal(0, 0.3, (1, hidden, 1)).astype(np.float32),
        "bias": np.zeros((1, 1, 1), np.float32),
    }

    def loss(params, batch):
        x, y = batch
        h = tm.tanh(tm.dense(x[:, :, :1], params["in"]))
        for t in range(1, x.shape[2]):
            h = tm.tanh(tm.dense(x[:, :, t : t + 1], params["in"]) + tm.dense(h, params["state"]))
        return tm.mse(tm.dense(h, params["out"], params["bias"]), y)

    def tasks(rng, count):
        leak = rng.uniform(-0.9, 0.9, (count, 1))
        x = rng.normal(0, 0.5, (2, count, 20, 5))
        y = np.zeros((2, count, 20))
        for t in range(5):
            y = leak * y + x[..., t]
        return [(x[i].astype(np.float32), y[i, ..., None].astype(np.float32)) for i in range(2)]

    start, (before, after) = meta_train(loss, params, tasks, alpha=0.2, steps=2, iterations=300, learning_rate=5e-3)
    assert after < 0.35 * start[1]
    assert after < 0.5 * before


def test_meta_sgd_learns_its_step_sizes():
    """Learned step sizes do better than the one they start from, and adapt the parameters that matter more."""
    model = tm.nn.mlp([1, 16, 1], activation="tanh", initialiser="xavier-uniform")
    params = model.init(np.random.default_rng(0), np.float64)
    alpha = tm.tree.map(lambda x: np.full(x.shape, 0.01), params)

    def loss(params, batch):
        return tm.mse(model.apply(params, batch[0].astype(np.float64)), batch[1].astype(np.float64))

    rng, optimiser = np.random.default_rng(1), tm.optim.adam(1e-2)
    state = optimiser.init((params, alpha))
    losses = []
    for _ in range(300):
        value, grads = tm.meta_value_and_grad(loss, params, *sinusoids(rng, 10), alpha, 1, learn_alpha=True)
        (params, alpha), state = optimiser.update(grads, state, (params, alpha))
        losses.append(float(value))
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])
    assert max(x.max() for x in tm.tree.leaves(alpha)) > 0.05
