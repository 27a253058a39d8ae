"""The counter-based generator against the published test vectors, and what makes it a stream for each task."""

from __future__ import annotations

import numpy as np
import pytest

from tinymaml.tasks import random_streams

# From the authors' Random123 distribution, kat_vectors, "philox4x32 10": counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("start", "key", "expected"), KNOWN)
def test_published_vectors(start: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    found = random_streams.philox(tuple(np.array([c], np.uint64) for c in start), key)  # type: ignore[arg-type]
    assert tuple(int(word[0]) for word in found) == expected


def test_a_task_has_the_same_numbers_in_every_batch() -> None:
    together = random_streams.uniform(3, "train", np.arange(100), 22)
    alone = random_streams.uniform(3, "train", np.array([57]), 22)
    backwards = random_streams.uniform(3, "train", np.arange(100)[::-1], 22)
    assert np.array_equal(together[57], alone[0])
    assert np.array_equal(together, backwards[::-1])
    assert np.array_equal(together[:, :9], random_streams.uniform(3, "train", np.arange(100), 9))


def test_seeds_splits_and_tasks_differ() -> None:
    tasks = np.array([0, 1, 2**32, 2**40])
    streams = [random_streams.words(seed, split, tasks, 8) for seed in (0, 1, 2**33) for split in random_streams.SPLITS]
    rows = np.concatenate(streams)
    assert len({row.tobytes() for row in rows}) == len(rows)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_is_uniform(dtype: type) -> None:
    u = random_streams.uniform(0, "test", np.arange(2000), 50, dtype)
    assert u.dtype == dtype
    assert u.min() >= 0
    assert u.max() < 1
    counts, _ = np.histogram(u, 20, (0, 1))
    expected = u.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-square, 19 degrees of freedom: 1 in 1000 beyond 43.8
    assert abs(np.corrcoef(u[:, 0], u[:, 1])[0, 1]) < 0.1


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="split must be one of train, validation, test, got 'dev'"):
        random_streams.words(0, "dev", np.arange(2), 4)
    with pytest.raises(ValueError, match="seed must be in"):
        random_streams.words(-1, "train", np.arange(2), 4)
    with pytest.raises(ValueError, match="tasks must be whole numbers >= 0"):
        random_streams.words(0, "train", np.array([-1]), 4)
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        random_streams.uniform(0, "train", np.arange(2), 4, np.float16)
