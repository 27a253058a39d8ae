"""Tasks drawn on the GPU are those drawn on the CPU, to the bit."""

import numpy as np
import pytest

from tests.cases import gpu_cases
from tests.tasks.test_episodes import numbered
from tinymaml.kernels.cpu import numpy_kernel

pytestmark = pytest.mark.usefixtures("gpu")


def both(name, specs, ins, static):
    """What the kernel gives on the GPU, in any order of lanes, and what the reference gives in this dtype."""
    actual = gpu_cases.run(name, specs, ins, static)
    with gpu_cases.lanes_reversed():
        for x, y in zip(actual, gpu_cases.run(name, specs, ins, static), strict=True):
            np.testing.assert_array_equal(x, y)
    expected = [np.empty(shape, dtype) for shape, dtype in specs]
    numpy_kernel(*name)(expected, ins, **static)
    return actual, expected


def place(seed, task):
    return np.array([seed, task], np.uint64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("split", "seed", "task", "tasks", "ways", "shots", "queries", "rotations", "side"),
    [
        ("train", 0, 0, 3, 5, 1, 1, True, 28),
        ("train", 2**64 - 1, 2**32 - 2, 4, 3, 2, 5, True, 5),
        ("validation", 7, 2**40, 1, 20, 5, 5, False, 9),
        ("test", 2**33, 3, 1, 40, 1, 9, True, 1),  # all classes, and all images of some
        ("test", 1, 1, 1, 2, 3, 2, True, 90),  # an image is more than a block copies
    ],
)
def test_episodes(dtype, split, seed, task, tasks, ways, shots, queries, rotations, side):
    rng = np.random.default_rng(0)
    counts = rng.integers(10, 41, 40)
    counts[3] = 10
    first = numbered(list(counts)).first.astype(np.int64)
    images = rng.integers(0, 256, (first[-1], side, side, 1 + side % 3), np.uint8)
    specs = []
    for examples in (shots, queries):
        specs += [((tasks, ways * examples, *images.shape[1:]), dtype), ((tasks, ways * examples), np.int64)]
    specs.append(((2,), np.uint64))
    static = {"split": split, "ways": ways, "shots": shots, "queries": queries, "rotations": rotations}
    actual, expected = both(("sampling", "episodes"), specs, [images, first, place(seed, task)], static)
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(x, y)
    assert actual[4].tolist() == [seed, task + tasks]


def test_more_ways_than_a_block_has_threads_are_refused():
    first = np.arange(301, dtype=np.int64)
    specs = [((1, 300, 1, 1, 1), np.float32), ((1, 300), np.int64)] * 2 + [((2,), np.uint64)]
    static = {"split": "train", "ways": 300, "shots": 1, "queries": 1, "rotations": False}
    with pytest.raises(ValueError, match="at most 256 ways and images a way, got 300 and 2"):
        gpu_cases.run(("sampling", "episodes"), specs, [np.zeros((300, 1, 1, 1), np.uint8), first, place(0, 0)], static)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize(("split", "seed", "task", "tasks", "parts"), [
    ("train", 0, 0, 25, (10, 10)),
    ("validation", 2**63, 2**32 - 3, 7, (5, 100)),
    ("test", 3, 2**50, 1, (20,)),
])  # fmt: skip
def test_sinusoids(dtype, columns, split, seed, task, tasks, parts):
    specs = []
    for points in parts:
        specs += [((tasks, points, columns), dtype), ((tasks, points, 1), dtype)]
    specs.append(((2,), np.uint64))
    static = {"split": split, "amplitude": (0.1, 5.0), "phase": (0.0, np.pi), "x": (-5.0, 5.0)}
    actual, expected = both(("sampling", "sinusoids"), specs, [place(seed, task)], static)
    for i, (x, y) in enumerate(zip(actual, expected, strict=True)):
        if i % 2 and i < len(specs) - 1:
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-14)
        else:
            np.testing.assert_array_equal(x, y)
    assert actual[-1].tolist() == [seed, task + tasks]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 7, 500])
def test_figures_are_written_into_their_row(dtype, rows):
    rng = np.random.default_rng(0)
    table, shares = rng.standard_normal((rows, 2)).astype(dtype), rng.random(300).astype(dtype)
    row = np.array([rows // 2])
    specs = [((rows, 2), dtype), ((1,), np.int64)]
    gpu_cases.check(("training", "write_figures"), specs, [table, row, np.asarray(dtype(0.5)), shares], {})
    lost = gpu_cases.run(
        ("training", "write_figures"), specs, [table, row, np.asarray(dtype(np.nan)), shares[:4][::-1]], {}
    )[0]
    assert np.isnan(lost[row[0], 0]) and np.isfinite(lost).sum() == 2 * rows - 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("tasks", "examples", "classes"), [(4, 75, 5), (1, 1, 2), (3, 400, 20)])
def test_shares_of_correct_answers(dtype, tasks, examples, classes):
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 3, (tasks, examples, classes)).astype(dtype)  # with ties
    logits[0, 0, 1], labels = np.inf, rng.integers(0, classes, (tasks, examples))
    labels[0, 0] = 1
    for x in (logits, np.swapaxes(logits.transpose(0, 2, 1).copy(), 1, 2)):
        gpu_cases.check(("training", "share_of_correct"), [((tasks,), dtype)], [x, labels], {})
    lost = np.full_like(logits, np.nan)
    gpu_cases.check(("training", "share_of_correct"), [((tasks,), dtype)], [lost, np.zeros_like(labels)], {})
