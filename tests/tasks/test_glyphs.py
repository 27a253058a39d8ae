"""The characters that a program draws."""

import hashlib

import numpy as np
import pytest

from tinymaml.tasks import episodes, glyphs

# Of all bits of a split. They are the same on every machine; a change of the drawing changes every published figure.
HASHES = {
    "train": "a114de8cbcbe5e7b2e10082cb3c1c7182a475246b79573347dde9b1c6ba35bec",
    "validation": "72a16160e3dc1cf7af0c2c54e261b388ff29181276d4dc24e61d5f9dae6f60bb",
    "test": "ef8e21e83f93b1a47622be0b38e8dd774404a4fabd24790608bc535cfc40979d",
}


@pytest.mark.parametrize("split", HASHES)
def test_every_machine_draws_the_same_bits(split):
    drawn = glyphs.images(split).images
    assert hashlib.sha256(drawn.tobytes()).hexdigest() == HASHES[split]


@pytest.mark.parametrize("split", HASHES)
def test_shape_and_classes(split):
    found = glyphs.images(split)
    count = glyphs.CLASSES[split]
    assert found.images.shape == (20 * count, 28, 28, 1) and found.images.dtype == np.uint8
    assert set(np.unique(found.images)) == {0, 255} and found.binary
    assert len(found.classes) == len(set(found.classes)) == count
    np.testing.assert_array_equal(np.diff(found.first), 20)
    ink = (found.images > 0).mean((1, 2, 3))
    assert ink.min() > 0.01 and ink.max() < 0.6
    assert glyphs.images(split) is found
    with pytest.raises(ValueError, match="read-only"):
        found.images[0] = 0


def test_no_class_is_in_two_splits_and_no_drawing_comes_twice():
    names = [name for split in glyphs.CLASSES for name in glyphs.images(split).classes]
    assert len(names) == len(set(names)) == 350
    drawings = [x.tobytes() for split in glyphs.CLASSES for x in glyphs.images(split).images]
    assert len(drawings) == len(set(drawings)) == 7000


def test_telling_them_apart_by_pixels_is_neither_trivial_nor_hopeless():
    drawn = episodes.sample(glyphs.images("test"), 0, "test", 0, 200, ways=5, shots=1, queries=3)
    support, query = (part["x"].reshape(200, -1, 784) for part in (drawn.support, drawn.query))
    distance = np.square(query[:, :, None] - support[:, None]).sum(-1)
    accuracy = (distance.argmin(-1) == drawn.query["y"]).mean()
    assert 0.5 < accuracy < 0.8


def test_unknown_split():
    with pytest.raises(ValueError, match="split must be one of train, validation, test, got 'dev'"):
        glyphs.images("dev")
