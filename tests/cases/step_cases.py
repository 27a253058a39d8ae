"""Steps to record: meta-steps on a small MLP and on a small convolutional network."""

from __future__ import annotations

import numpy as np

import tinymaml as tm
from tinymaml import nets, nn, optim

TASKS, POINTS = 6, 5


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def regression(dtype=np.float32, seed=0, **options):
    """(a step, its arguments): a whole meta-step with Adam on a small MLP."""
    rng = np.random.default_rng(seed)
    model = nn.mlp([2, 8, 8, 1])
    params = model.init(rng, dtype)
    support, query = ({"x": rng.normal(size=(TASKS, POINTS, 2)).astype(dtype)} for _ in range(2))
    for batch in (support, query):
        batch["y"] = np.sin(batch["x"].sum(-1, keepdims=True))
    optimiser = optim.adam(1e-2)
    state = {**optimiser.init(params), "iteration": np.array(3)}
    options = {"alpha": 0.1, "steps": 2, **options}

    def loss(p, batch):
        return tm.mse(model.apply(p, batch["x"]), batch["y"])

    def step(params, state, support, query):
        value, grads = tm.meta_value_and_grad(loss, params, support, query, **options)
        return value, *optimiser.update(grads, state, params)

    return step, (params, state, support, query)


def classification(downsample, dtype=np.float32, **options):
    """The same on a small convolutional network."""
    rng = np.random.default_rng(1)
    model = nets.conv_net((9, 9, 2), 3, 4, 2, downsample=downsample)
    params = model.init(rng, dtype)
    support, query = (
        {"x": rng.random((TASKS, 6, 9, 9, 2)).astype(dtype), "y": np.tile(np.arange(3).repeat(2), (TASKS, 1))}
        for _ in range(2)
    )

    def loss(p, batch):
        return tm.softmax_cross_entropy(model.apply(p, batch["x"]), batch["y"])

    def step(params, support, query):
        return tm.meta_value_and_grad(loss, params, support, query, **{"alpha": 0.1, "steps": 2, **options})

    return step, (params, support, query)
