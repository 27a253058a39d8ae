"""A made-up evaluation, for the tests of results.json, its table and its pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinymaml.experiments.control.settings import NavigationSettings
from tinymaml.experiments.few_shot import table as image_table
from tinymaml.experiments.few_shot.settings import ImageSettings
from tinymaml.experiments.sinusoid import table as sinusoid_table
from tinymaml.experiments.sinusoid.settings import SinusoidSettings
from tinymaml.train import results
from tinymaml.train.settings import Settings


def entry(level: float, diverged: int = 0, best: bool = False, **changes: Any) -> dict[str, Any]:
    """An evaluation with made-up errors around `level`, of 50 tasks, ten inner steps; `changes` are of the
    provenance."""
    rng = np.random.default_rng(int(100 * level))
    errors = [level / (1 + k) * rng.uniform(0.5, 1.5, 50).astype(np.float32) for k in range(11)]
    bad = np.zeros(50, np.bool_)
    bad[:diverged] = True
    for k in range(5, 11):
        errors[k] = np.where(bad, np.inf, errors[k])
    figures = dict.fromkeys(map(sinusoid_table.condition, (5, 10, 20)), results.figures(errors, bad))
    x = np.linspace(-5, 5, 100)
    sketch = {
        "amplitude": 2.0,
        "phase": 1.0,
        "support_x": [0.0, 1.0],
        "support_y": [-1.7, 0.0],
        "x": x.tolist(),
        "steps": {k: (np.sin(x) * s).tolist() for k, s in (("0", 0.1), ("1", 1.0), ("10", 1.9))},
    }
    return results.entry(
        domain="sinusoid",
        metric="mean squared error",
        better="lower",
        protocol={"tasks": 50, "query_points": 100, "alpha": {"5": 0.01, "10": 0.01, "20": 0.02}},
        provenance=provenance(SinusoidSettings(), 70_000, 101.2) | changes,
        step_size_search={sinusoid_table.condition(5): {0.01: 2.5, 0.1: None}},
        parameters={
            results.LAST: results.measured(70_000, figures),
            results.BEST_IN_VALIDATION: results.measured(40_000, figures) if best else None,
        },
        details={"sketches": [{**sketch, "shots": k} for k in (5, 10, 20) for _ in range(6)]},
    )


def provenance(settings: Settings, iterations: int, seconds: float) -> dict[str, Any]:
    """Of a run with seed 3."""
    return {
        "seed": 3,
        "iterations": iterations,
        "seconds": seconds,
        "versions": {"python": "3.11.7"},
        "machine": "x86_64, Linux",
        "settings": settings.as_dict(),
    }


def image_entry(
    level: float,
    best: bool = True,
    diverged: int = 0,
    dataset: str = "omniglot",
    settings: ImageSettings | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """An evaluation of images with made-up accuracies around `level`, of 50 tasks, 5-way 1-shot."""
    settings = settings or ImageSettings(dataset=dataset)
    rng = np.random.default_rng(int(100 * level))
    bad = np.arange(50) < diverged

    def figures(shift: float, bad: Any) -> dict[str, results.Figures]:
        found = {}
        for kind, off in (("transductive", 0.0), ("inductive", 0.05)):
            for q in (1, 15):
                shares = [np.clip(rng.normal(level + shift - off - 0.5 * (k == 0), 0.02, 50), 0, 1) for k in range(11)]
                found[image_table.condition(kind, q)] = results.figures(shares, bad)
        return found

    last = results.measured(60_000, figures(0.0, bad))
    return results.entry(
        domain="few-shot",
        metric="accuracy",
        unit="%",
        better="higher",
        protocol={
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
        provenance=provenance(settings, 60_000, 7000.4) | changes,
        parameters={
            results.LAST: last,
            results.BEST_IN_VALIDATION: results.measured(41_000, figures(0.01, bad & False)) if best else None,
        },
    )


def rl_entry(level: float = -20.0, **changes: Any) -> dict[str, Any]:
    """An evaluation of reinforcement learning with made-up returns around `level`."""
    returns: results.Figures = {"mean": [2 * level, level, level / 2], "half_width": [1.0, None, 0.5]}
    return results.entry(
        domain="control",
        metric="return",
        better="higher",
        protocol={"tasks": 40, "rollouts": 20, "steps": 2, "alpha": 0.1, "decay": 0.5},
        provenance=provenance(NavigationSettings(), 150, 300.5) | changes,
        step_size_search={"new goals": {0.1: level, 0.5: None}},
        parameters={
            results.LAST: results.measured(150, {"new goals": returns}),
            results.BEST_IN_VALIDATION: results.measured(140, {"new goals": returns}),
        },
    )


def user_entry(level: float, steps: int = 0, **changes: Any) -> dict[str, Any]:
    """An evaluation in a domain that is none of the package's, of a metric in metres."""
    rng = np.random.default_rng(int(100 * level))
    return results.entry(
        domain="oscillators",
        metric="root mean squared error",
        unit="m",
        better="lower",
        protocol={"tasks": 30},
        provenance=provenance(SinusoidSettings(), 200, 2.5) | changes,
        parameters={
            results.LAST: results.measured(
                200,
                {"new tasks": results.figures(level / np.arange(1, steps + 2)[:, None] * rng.uniform(0.5, 1.5, 30))},
            )
        },
    )
