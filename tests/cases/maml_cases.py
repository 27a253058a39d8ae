"""Small smooth meta-learning problems for the tests of MAML, and what their meta-gradients must be."""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import tinymaml as tm

DRAWN = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
EXACT_MODES = ("forward-over-reverse", "reverse-over-reverse", "reverse-over-forward")
STEPS = st.integers(1, 5)


class Problem(NamedTuple):
    loss: Any
    params: Any
    support: Any
    query: Any


def problem(seed, tasks=3, examples=4, hidden=3, per_task=False, dtype=np.float64):
    """Regression with a network of tanh units, of shared parameters or of each task's own."""
    rng = np.random.default_rng(seed)
    model = tm.nn.mlp([2, hidden, 1], activation="tanh", initialiser="xavier-uniform")
    params = model.init(rng, np.float64)
    if per_task:
        params = tm.tree.map(lambda x: np.repeat(x, tasks, 0), params)
    params = tm.tree.map(lambda x: (x + 0.3 * rng.normal(size=x.shape)).astype(dtype), params)

    def batch():
        shapes = (tasks, examples, 2), (tasks, examples, 1)
        return {name: rng.normal(size=shape).astype(dtype) for name, shape in zip("xy", shapes, strict=True)}

    def loss(params, batch):
        return tm.mse(model.apply(params, batch["x"]), batch["y"])

    return Problem(loss, params, batch(), batch())


@st.composite
def problems(draw):
    sizes = {"tasks": draw(st.integers(1, 4)), "examples": draw(st.integers(1, 4)), "hidden": draw(st.integers(1, 3))}
    return problem(draw(st.integers(0, 2**31)), **sizes, per_task=draw(st.booleans()))


def unrolled(p, alpha, steps, adapted=None):
    """The meta-objective and its gradients by params and alpha, by recording adaptation and all and pulling through."""

    def objective(params, alpha):
        phi = by_hand(p, params, alpha, steps, adapted)
        return tm.mean(p.loss(phi, p.query))

    alpha = tm.tree.map(lambda a: np.asarray(a, p.support["x"].dtype), alpha)
    return tm.value_and_grad(objective, (0, 1))(p.params, alpha)


def by_hand(p, params, alpha, steps, adapted=None, graph=True):
    """Adaptation written out with `pull`; without `graph` the gradients are constants, as in first-order MAML."""
    tasks = len(p.support["x"])
    phi = tm.tree.map(lambda x: tm.broadcast_to(x, (tasks, *x.shape[1:])), params)
    structure = tm.tree.flatten(params)[1]
    masks = tm.tree.spread(True if adapted is None else adapted, structure, "adapted")
    rates = tm.tree.spread(alpha, structure, "alpha")
    for _ in range(steps):
        g = tm.grad(lambda phi: tm.sum(p.loss(phi, p.support)))(phi)
        if not graph:
            g = tm.tree.map(tm.stop_gradient, g)
        parts = zip(tm.tree.leaves(phi), tm.tree.leaves(g), rates, masks, strict=True)
        phi = tm.tree.unflatten(structure, [x - a * d if mask else x for x, d, a, mask in parts])
    return phi


def flat(trees):
    """All numbers of a tree in one vector."""
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in tm.tree.leaves(trees)])


def close(one, other, tolerance=1e-12):
    """Whether two trees agree, by the norm of their difference relative to the norm of the second (at least 1)."""
    one, other = flat(one), flat(other)
    error = np.linalg.norm(one - other) / max(1.0, np.linalg.norm(other))
    assert error <= tolerance, f"differ by {error:.2e}"


def directional(function, params, seed, step=1e-4):
    """A direction, and the derivative of `function` along it by a central difference of fourth order."""
    leaves, structure = tm.tree.flatten(params)
    rng = np.random.default_rng(seed)
    v = [rng.normal(size=np.shape(x)) for x in leaves]
    size = np.sqrt(sum(float(np.sum(d**2)) for d in v))
    v = [d / size for d in v]

    def at(h):
        return float(function(tm.tree.unflatten(structure, [x + h * d for x, d in zip(leaves, v, strict=True)])))

    slope = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
    return tm.tree.unflatten(structure, v), slope


def inner(one, other):
    return float(flat(one) @ flat(other))
