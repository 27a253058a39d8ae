"""A made-up evaluation, for the tests of results.json, its table and its pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinymaml.experiments.control.settings import NavigationSettings
from tinymaml.experiments.few_shot.settings import ImageSettings
from tinymaml.experiments.sinusoid.settings import SinusoidSettings
from tinymaml.train import results


def entry(level: float, diverged: int = 0, best: bool = False) -> dict[str, Any]:
    """An evaluation with made-up errors around `level`, of 50 tasks, three inner steps and one more for the last."""
    rng = np.random.default_rng(int(100 * level))
    errors = [level / (1 + k) * rng.uniform(0.5, 1.5, 50).astype(np.float32) for k in range(11)]
    bad = np.zeros(50, np.bool_)
    bad[:diverged] = True
    for k in range(5, 11):
        errors[k] = np.where(bad, np.inf, errors[k])
    found = results.summary(errors, bad)
    shots = dict.fromkeys(("5", "10", "20"), found)
    x = np.linspace(-5, 5, 100)
    sketch = {
        "amplitude": 2.0,
        "phase": 1.0,
        "support_x": [0.0, 1.0],
        "support_y": [-1.7, 0.0],
        "x": x.tolist(),
        "steps": {k: (np.sin(x) * s).tolist() for k, s in (("0", 0.1), ("1", 1.0), ("10", 1.9))},
    }
    return {
        "protocol": {"tasks": 50, "query_points": 100, "alpha": {"5": 0.01, "10": 0.01, "20": 0.02}},
        "seed": 3,
        "iterations": 70000,
        "seconds": 101.2,
        "versions": {"python": "3.11.7"},
        "machine": "x86_64, Linux",
        "settings": SinusoidSettings().as_dict(),
        "step_size_search": {"5": {"0.01": 2.5, "0.1": None}},
        "shots": shots,
        "best": {"iteration": 40000, "shots": shots} if best else None,
        "qualitative": [{**sketch, "shots": k} for k in (5, 10, 20) for _ in range(6)],
    }


def image_entry(
    level: float,
    best: bool = True,
    diverged: int = 0,
    dataset: str = "omniglot",
    settings: ImageSettings | None = None,
) -> dict[str, Any]:
    """An evaluation of images with made-up accuracies around `level`, of 50 tasks, 5-way 1-shot."""
    settings = settings or ImageSettings(dataset=dataset)
    rng = np.random.default_rng(int(100 * level))

    def accuracy(shift: float) -> results.Accuracy:
        found: results.Accuracy = {}
        for kind, off in (("transductive", 0.0), ("inductive", 0.05)):
            for q in ("1", "15"):
                shares = [np.clip(rng.normal(level + shift - off - 0.5 * (k == 0), 0.02, 50), 0, 1) for k in range(11)]
                found.setdefault(kind, {})[q] = results.shares(np.array(shares))
        return found

    return {
        "protocol": {
            "dataset": settings.dataset,
            "tasks": 50,
            "ways": settings.ways,
            "shots": settings.shots,
            "query_per_class": [1, 15],
            "alpha": 0.4,
            "inner_loss": "mean",
            "adapt_norm": False,
            "test_steps": 3,
        },
        "seed": 3,
        "iterations": 60000,
        "seconds": 7000.4,
        "versions": {"python": "3.11.7"},
        "machine": "x86_64, Linux",
        "settings": settings.as_dict(),
        "accuracy": accuracy(0.0),
        "diverged": diverged,
        "best": {"iteration": 41000, "accuracy": accuracy(0.01), "diverged": 0} if best else None,
    }


def rl_entry(level: float = -20.0) -> dict[str, Any]:
    """An evaluation of reinforcement learning with made-up returns around `level`."""
    returns = {"mean": [2 * level, level, level / 2], "half_width": [1.0, None, 0.5]}
    return {
        "protocol": {"goals": 40, "rollouts": 20, "steps": 2, "alpha": 0.1, "decay": 0.5},
        "seed": 3,
        "iterations": 150,
        "seconds": 300.5,
        "versions": {"python": "3.11.7"},
        "machine": "x86_64, Linux",
        "settings": NavigationSettings().as_dict(),
        "step_size_search": {"0.1": level, "0.5": None},
        "returns": returns,
        "best": {"iteration": 140, "returns": returns},
        "best_in_training": None,
    }
