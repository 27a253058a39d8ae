"""The four modes of a Hessian-vector product, as multiples of a gradient, beside JAX and PyTorch."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from bench.timing import interleaved, table
from tinymaml import grad, hvp, mse, nn, sum, tree
from tinymaml.transforms import MODES

EXAMPLES = 250


def run(rounds: int) -> None:
    rng = np.random.default_rng(0)
    model = nn.mlp([1, 40, 40, 1])
    params = model.init(rng)
    v = tree.map(lambda p: rng.normal(size=p.shape).astype(p.dtype), params)
    x, y = rng.normal(size=(2, 1, EXAMPLES, 1)).astype(np.float32)

    def loss(params: Any) -> Any:
        return sum(mse(model.apply(params, x), y))

    functions: dict[str, Any] = {"tinymaml, the gradient alone": lambda: grad(loss)(params)}
    results = {}
    for mode in MODES:
        functions[f"tinymaml, {mode}"] = lambda mode=mode: hvp(loss, params, v, mode=mode)
        if mode != "finite-difference":
            results[f"tinymaml, {mode}"] = tree.leaves(hvp(loss, params, v, mode=mode))
    if importlib.util.find_spec("jax"):
        from bench import peers_jax

        ours = peers_jax.hvp(lambda p: peers_jax.loss(p, x, y), params, v)
        functions |= ours
        results |= {
            name: [np.asarray(a) for layer in f() for a in (layer["b"], layer["w"])] for name, f in ours.items()
        }
    if importlib.util.find_spec("torch"):
        import torch

        from bench import peers_torch

        xt, yt = torch.tensor(x), torch.tensor(y)
        theirs = peers_torch.hvp(lambda p: peers_torch.loss(p, xt, yt), tree.leaves(params), tree.leaves(v))
        functions |= theirs
        results |= {name: [np.asarray(a) for a in f()] for name, f in theirs.items()}
    reference = results[f"tinymaml, {MODES[0]}"]
    for name, found in results.items():
        error = max(np.abs(a - b).max() / np.abs(a).max() for a, b in zip(reference, found, strict=True))
        if not error < 1e-3:
            raise SystemExit(f"{name}: its product differs from ours by {error}: nothing is timed")
    table(f"Hessian-vector product, MLP 1-40-40-1, {EXAMPLES} examples, float32", interleaved(functions, rounds))
