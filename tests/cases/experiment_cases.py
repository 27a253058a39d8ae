"""Experiments small enough for tests: on sinusoids, and on a data set of small images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinymaml.experiments.registry import EXPERIMENTS, GENERAL
from tinymaml.tasks import imageset
from tinymaml.train.experiment import Experiment

SMALL: dict[str, Any] = {
    "dataset": "small",
    "filters": 4,
    "layers": 2,
    "ways": 3,
    "shots": 2,
    "query_images": 2,
    "meta_batch": 4,
    "iterations": 12,
    "log_every": 3,
    "checkpoint_every": 4,
    "validate_every": 3,
    "validation_tasks": 6,
    "eval_tasks": 7,
    "eval_steps": 4,
    "eval_query": 5,
    "eval_batch": 3,
}

TINY: dict[str, Any] = {
    "hidden": (8,),
    "meta_batch": 4,
    "shots": 3,
    "query_points": 3,
    "log_every": 10,
    "validate_every": 15,
    "validation_tasks": 10,
    "eval_tasks": 10,
    "eval_steps": 2,
    "iterations": 60,
    "checkpoint_every": 20,
}


def tiny(**changes: Any) -> Experiment:
    """The sinusoid experiment, with small settings."""
    return EXPERIMENTS["sinusoid"].replaced(**{**TINY, **changes})


def write_small(folder: Path, classes: int = 8, images: int = 10, seed: int = 0) -> Path:
    """`small.h5`: every class is a pattern of its own, of which every image has some pixels changed."""
    rng = np.random.default_rng(seed)

    def drawn() -> Any:
        pattern = rng.random((1, 8, 8, 1)) < 0.4
        return np.where((rng.random((images, 8, 8, 1)) < 0.2) != pattern, 255, 0).astype(np.uint8)

    parts = {}
    for split in ("train", "validation", "test"):
        names = [f"{split}{c}" for c in range(classes)]
        parts[split] = imageset.Part(names, [images] * classes, [drawn() for _ in names])
    imageset.write(folder / "small.h5", "small", parts, (8, 8, 1), {}, binary=True)
    return folder


def small(folder: Path, **changes: Any) -> Experiment:
    """Any images, with settings for the small data set in a folder."""
    return GENERAL["images"].replaced(**{**SMALL, "data": str(folder), **changes})
