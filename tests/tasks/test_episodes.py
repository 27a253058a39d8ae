"""Episodes: what a task is made of, and that it is a function of seed, split and task alone."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinymaml.tasks import episodes
from tinymaml.tasks.imageset import ImageSet
from tinymaml.tasks.random_streams import words

DRAWN = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def numbered(counts, side=3):
    """A set of images that hold their own number in the first two pixels, and no symmetry."""
    total = sum(counts)
    images = np.zeros((total, side, side, 2), np.uint8)
    images[..., 0] = np.arange(side * side).reshape(side, side)
    images[:, 0, 0, 1], images[:, 0, 1, 1] = np.arange(total) // 256, np.arange(total) % 256
    first = np.concatenate([[0], np.cumsum(counts)])
    return ImageSet("numbered", "train", images, first, [f"class {c}" for c in range(len(counts))], False)


def upright(x, turns):
    """Bytes of images [ways, k, H, W, C] turned back."""
    back = np.stack([np.rot90(image, -quarter, (1, 2)) for image, quarter in zip(x, turns, strict=True)])
    return np.rint(back * 255).astype(np.uint8)


def numbers(x, turns):
    """Which images these are, [ways, k]."""
    found = upright(x, turns).astype(int)
    return found[:, :, 0, 0, 1] * 256 + found[:, :, 0, 1, 1]


COUNTS = st.lists(st.integers(5, 40), min_size=3, max_size=12)


@DRAWN
@given(
    counts=COUNTS,
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**40),
    tasks=st.integers(1, 4),
    shots=st.integers(1, 3),
    queries=st.integers(1, 2),
    turned=st.booleans(),
)
def test_what_a_task_is_made_of(counts, seed, first, tasks, shots, queries, turned):
    images, ways = numbered(counts), 3
    drawn = episodes.sample(
        images, seed, "train", first, tasks, ways=ways, shots=shots, queries=queries, rotations=turned
    )
    assert drawn.support["x"].shape == (tasks, ways * shots, 3, 3, 2)
    assert drawn.query["x"].shape == (tasks, ways * queries, 3, 3, 2)
    assert drawn.support["x"].dtype == np.float32 and drawn.support["y"].dtype == np.int64
    assert (drawn.turns == 0).all() or turned
    for t in range(tasks):
        classes, turns = drawn.classes[t], drawn.turns[t]
        assert len(set(classes)) == ways
        parts = []
        for part, k in ((drawn.support, shots), (drawn.query, queries)):
            np.testing.assert_array_equal(part["y"][t], np.repeat(np.arange(ways), k))
            parts.append(numbers(part["x"][t].reshape(ways, k, 3, 3, 2), turns))
        for own, c in zip(np.concatenate(parts, 1), classes, strict=True):
            assert len(set(own)) == shots + queries  # support and query share no image
            assert (images.first[c] <= own).all() and (own < images.first[c + 1]).all()


def plainly(images, seed, split, task, ways, shots, queries, rotations):
    """The same drawn image by image."""
    stream = words(seed, split, np.array([task], np.uint64), ways * (2 + shots + queries))[0].tolist()

    def distinct(drawn, count):
        left = list(range(count))
        return [left.pop((word * len(left)) >> 32) for word in drawn]

    classes = distinct(stream[:ways], len(images.classes))
    turns = [word >> 30 if rotations else 0 for word in stream[ways : 2 * ways]]
    found = []
    for way, c in enumerate(classes):
        own = [stream[ways * (2 + j) + way] for j in range(shots + queries)]
        places = distinct(own, int(images.first[c + 1] - images.first[c]))
        found.append([np.rot90(images.images[images.first[c] + i], turns[way]) / np.float32(255) for i in places])
    return classes, turns, found


@DRAWN
@given(counts=COUNTS, seed=st.integers(0, 2**64 - 1), task=st.integers(0, 2**50), turned=st.booleans())
def test_against_drawing_image_by_image(counts, seed, task, turned):
    images = numbered(counts)
    drawn = episodes.sample(images, seed, "test", task, 1, ways=3, shots=2, queries=3, rotations=turned)
    classes, turns, found = plainly(images, seed, "test", task, 3, 2, 3, turned)
    assert drawn.classes[0].tolist() == classes and drawn.turns[0].tolist() == turns
    np.testing.assert_array_equal(drawn.support["x"][0], np.concatenate([own[:2] for own in found]))
    np.testing.assert_array_equal(drawn.query["x"][0], np.concatenate([own[2:] for own in found]))


@DRAWN
@given(
    counts=COUNTS,
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**40),
    count=st.integers(1, 7),
    turns=st.sampled_from([1, 4]),
)
def test_single_labelled_images_against_drawing_them_one_by_one(counts, seed, first, count, turns):
    images = numbered(counts)
    x, y = episodes.labelled(images, seed, "train", first, 3, count=count, turns=turns)
    assert x.shape == (3, count, 3, 3, 2) and x.dtype == np.float32 and y.dtype == np.int64
    for t in range(3):
        stream = words(seed, "train", np.array([first + t], np.uint64), 2 * count)[0].tolist()
        for j in range(count):
            number, quarter = (stream[j] * sum(counts)) >> 32, (stream[count + j] * turns) >> 32
            expected = np.rot90(images.images[number], quarter) / np.float32(255)
            np.testing.assert_array_equal(x[t, j], expected)
            c, of_turn = divmod(int(y[t, j]), turns)
            assert of_turn == quarter and images.first[c] <= number < images.first[c + 1]


def test_single_labelled_images_come_from_all_classes_and_turns_alike():
    images = numbered([20] * 5)
    _, y = episodes.labelled(images, 0, "train", 0, 20, count=400, turns=4)
    counts = np.bincount(y.ravel(), minlength=20)
    assert len(counts) == 20 and np.abs(counts - 400).max() < 5 * np.sqrt(400)


def test_single_labelled_images_that_cannot_be_drawn_are_refused():
    for wrong, message in (({"count": 0}, "count must be at least 1, got 0"), ({"turns": 4}, "only square images")):
        wide = numbered([20] * 5)._replace(images=np.zeros((100, 2, 3, 1), np.uint8))
        with pytest.raises(ValueError, match=message):
            episodes.labelled(wide, 0, "train", 0, 1, **{"count": 1, **wrong})


def test_a_task_does_not_depend_on_the_batch():
    images = numbered([20] * 30)
    options = {"ways": 5, "shots": 1, "queries": 1, "rotations": True}
    whole = episodes.sample(images, 3, "train", 100, 8, **options)
    for t in range(8):
        alone = episodes.sample(images, 3, "train", 100 + t, 1, **options)
        for part, other in ((whole.support, alone.support), (whole.query, alone.query)):
            np.testing.assert_array_equal(part["x"][t], other["x"][0])
    other = episodes.sample(images, 4, "train", 100, 8, **options)
    assert (other.classes != whole.classes).any()
    assert (episodes.sample(images, 3, "validation", 100, 8, **options).classes != whole.classes).any()


def test_with_more_queries_the_first_ones_stay():
    images = numbered([20] * 30)
    few, many = (episodes.sample(images, 3, "train", 0, 4, ways=5, shots=2, queries=q, rotations=True) for q in (1, 15))
    np.testing.assert_array_equal(few.support["x"], many.support["x"])
    first = many.query["x"].reshape(4, 5, 15, 3, 3, 2)[:, :, :1].reshape(few.query["x"].shape)
    np.testing.assert_array_equal(few.query["x"], first)


def test_classes_images_and_turns_are_drawn_evenly():
    images = numbered([6] * 10)
    drawn = episodes.sample(images, 0, "train", 0, 4000, ways=3, shots=1, queries=1, rotations=True)
    rows = zip(drawn.support["x"], drawn.turns, strict=True)
    which = np.concatenate([numbers(x.reshape(3, 1, 3, 3, 2), turns)[:, 0] for x, turns in rows])
    for values, kinds in ((drawn.classes, 10), (drawn.turns, 4), (which, 60), (drawn.classes[:, 2], 10)):
        counts = np.bincount(values.ravel(), minlength=kinds)
        expected = values.size / kinds
        chi = (np.square(counts - expected) / expected).sum()
        assert chi < kinds - 1 + 4 * np.sqrt(2 * (kinds - 1))


def test_values_are_within_0_and_1():
    images = numbered([5] * 5)._replace(images=np.full((25, 2, 2, 1), 255, np.uint8))
    x = episodes.sample(images, 0, "train", 0, 1, ways=2, shots=1, queries=1).support["x"]
    assert (x == 1).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 11}, "11 ways, but numbered has 10 train classes"),
        ({"shots": 4, "queries": 4}, "class class 3 of numbered has 5 images, a task takes 8 of a class"),
        ({"ways": 0}, "ways must be at least 1"),
        ({"shots": 0}, "shots must be at least 1"),
        ({"queries": 0}, "queries must be at least 1"),
        ({"tasks": 0}, "tasks must be at least 1"),
        ({"first_task": -1}, "first_task must not be negative"),
        ({"split": "dev"}, "split must be one of"),
        ({"seed": -1}, "seed must be in"),
    ],
)
def test_bad_input(changes, message):
    images = numbered([9, 9, 9, 5, *[9] * 6])
    asked = {"seed": 0, "split": "train", "first_task": 0, "tasks": 2, "ways": 5, "shots": 1, "queries": 1} | changes
    with pytest.raises(ValueError, match=message):
        episodes.sample(images, **asked)


def test_only_square_images_can_be_turned():
    images = numbered([5] * 5)._replace(images=np.zeros((25, 2, 3, 1), np.uint8))
    episodes.sample(images, 0, "train", 0, 1, ways=2, shots=1, queries=1)
    with pytest.raises(ValueError, match=r"only square images can be turned, those of numbered are \(2, 3\)"):
        episodes.sample(images, 0, "train", 0, 1, ways=2, shots=1, queries=1, rotations=True)
