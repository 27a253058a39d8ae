"""The distribution of sinusoid tasks: the paper's ranges, and a stream that does not depend on the batch."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tinymaml.tasks import sinusoid


def test_ranges_and_values() -> None:
    batch = sinusoid.sample(seed=0, split="train", first_task=0, tasks=5000, points=20)
    assert batch.x.shape == batch.y.shape == (5000, 20, 1)
    assert batch.amplitude.shape == batch.phase.shape == (5000,)
    for values, low, high in ((batch.amplitude, 0.1, 5), (batch.phase, 0, np.pi), (batch.x, -5, 5)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)
    expected = batch.amplitude[:, None, None] * np.sin(batch.x - batch.phase[:, None, None])
    assert np.array_equal(batch.y, expected)


def test_the_stream_does_not_depend_on_the_batch() -> None:
    whole = sinusoid.sample(seed=4, split="test", first_task=0, tasks=60, points=20)
    for first, tasks, points in ((0, 60, 5), (17, 1, 20), (30, 30, 11)):
        part = sinusoid.sample(seed=4, split="test", first_task=first, tasks=tasks, points=points)
        assert np.array_equal(part.x, whole.x[first : first + tasks, :points])
        assert np.array_equal(part.amplitude, whole.amplitude[first : first + tasks])
        assert np.array_equal(part.y, whole.y[first : first + tasks, :points])


def test_the_stream_is_the_one_that_the_figures_were_made_with() -> None:
    batch = sinusoid.sample(seed=0, split="test", first_task=0, tasks=100, points=10)
    content = b"".join(np.ascontiguousarray(a).tobytes() for a in (batch.amplitude, batch.phase, batch.x))
    assert hashlib.sha256(content).hexdigest()[:16] == "0f2e5c17e74b4130"


def test_splits_and_seeds_differ() -> None:
    first = sinusoid.sample(seed=0, split="train", first_task=0, tasks=10, points=5).x
    assert not np.array_equal(first, sinusoid.sample(seed=0, split="test", first_task=0, tasks=10, points=5).x)
    assert not np.array_equal(first, sinusoid.sample(seed=1, split="train", first_task=0, tasks=10, points=5).x)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="tasks and points must be >= 1"):
        sinusoid.sample(seed=0, split="train", first_task=0, tasks=0, points=5)
    with pytest.raises(ValueError, match="amplitude: the range must be"):
        sinusoid.sample(seed=0, split="train", first_task=0, tasks=1, points=5, amplitude=(2.0, 1.0))
