"""The outer updates of algorithm 3: TRPO, and Adam on the meta-gradient, once (vpg) or with the ratio clipped (ppo)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinymaml import optim, tree
from tinymaml.autodiff.tensor import Array
from tinymaml.autodiff.tree import Tree
from tinymaml.experiments.control.workbench import Workbench
from tinymaml.rl import trpo
from tinymaml.rl.objectives import Batch
from tinymaml.rl.rollouts import subsample
from tinymaml.train.trainer import Figures


def update(bench: Workbench, state: Tree, supports: Sequence[Batch], query: Batch) -> tuple[Tree, Figures]:
    """The state after an outer update, and what there is to say of it."""
    return (_trust_region if bench.method.outer == "trpo" else _adam_steps)(bench, state, supports, query)


def _trust_region(bench: Workbench, state: Tree, supports: Sequence[Batch], query: Batch) -> tuple[Tree, Figures]:
    params, method = state["params"], bench.method
    loss, gradient = bench.gradient(params, supports, query)

    def losses(x: Array) -> tuple[float, float]:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is not accepted
            surrogate, divergence = bench.losses(_like(params, x), supports, query)
        return float(surrogate), float(divergence)

    done = trpo.step(
        _vector(params),
        float(loss),
        _vector(gradient),
        _product(bench, params, supports, query),
        losses,
        method.max_kl,
        method.cg_iterations,
        method.damping,
    )
    moved = _like(params, done.params) if done.accepted else params
    figures = {"loss": done.loss, "kl": done.divergence, "tries": float(done.tries), "accepted": float(done.accepted)}
    return {**state, "params": moved}, figures


def _adam_steps(bench: Workbench, state: Tree, supports: Sequence[Batch], query: Batch) -> tuple[Tree, Figures]:
    optimiser = optim.adam(bench.method.learning_rate)
    params, moments = state["params"], state["optimiser"]
    loss = 0.0
    for _ in range(bench.method.ppo_steps if bench.method.outer == "ppo" else 1):
        value, gradient = bench.gradient(params, supports, query)
        params, moments = optimiser.update(gradient, moments, params)
        loss = float(value)
    _, divergence = bench.losses(params, supports, query)
    return {**state, "params": params, "optimiser": moments}, {"loss": loss, "kl": float(divergence)}


def _product(bench: Workbench, params: Tree, supports: Sequence[Batch], query: Batch) -> trpo.Product:
    """The KL's Hessian times a vector, on a share of the transitions."""
    share = bench.method.curvature_share
    few, asked = [subsample(support, share) for support in supports], subsample(query, share)
    if bench.method.curvature == "exact":
        seen = {name: asked[name] for name in ("observations", "weights", "shares")}
        return lambda v: _vector(bench.curvature(params, few, seen, _like(params, v)))
    centre = _vector(params)
    size = 1 / (np.linalg.norm(centre) + 1e-8)  # as the authors have it

    def difference(v: Array) -> Array:
        ahead, behind = [
            _vector(bench.divergence_gradient(_like(params, x), few, asked)[1])
            for x in (centre + size * v, centre - size * v)
        ]
        return (ahead - behind) / (2 * size)

    return difference


def _vector(params: Tree) -> Array:
    """All numbers of a tree, float64[P]."""
    return np.concatenate([x.ravel() for x in tree.leaves(params)]).astype(np.float64)


def _like(params: Tree, vector: Array) -> Tree:
    """A vector as a tree like params."""
    leaves, structure = tree.flatten(params)
    cuts = np.cumsum([x.size for x in leaves])[:-1]
    parts = np.split(vector, cuts)
    return tree.unflatten(structure, [p.reshape(x.shape).astype(x.dtype) for p, x in zip(parts, leaves, strict=True)])
