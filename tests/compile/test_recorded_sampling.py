"""Drawing a meta-batch as part of a recorded step, on either device: the tasks are those of `tinymaml.tasks`."""

from typing import Any

import numpy as np
import pytest

import tinymaml as tm
from tests.tasks.test_episodes import numbered
from tinymaml.autodiff.tracing import RecordingError
from tinymaml.device import to_device, to_host
from tinymaml.tasks import episodes, sinusoid
from tinymaml.train import sampling

IMAGES = numbered([5, 8, 6, 9])
ASKED: dict[str, Any] = {"tasks": 2, "ways": 3, "shots": 1, "queries": 2, "rotations": True}


@pytest.fixture(params=["cpu", "gpu"])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "gpu":
        request.getfixturevalue("gpu")
    return str(request.param)


def place(device: str) -> Any:
    return to_device(np.array([7, 2**32 - 1], np.uint64), device)


def same(actual: Any, expected: dict[str, Any]) -> None:
    for name, x in to_host(actual).items():
        np.testing.assert_array_equal(x, expected[name])


def test_episodes(device: str) -> None:
    def step(at: Any, images: Any, first: Any) -> Any:
        return sampling.episodes(at, images, first, dtype="float32", split="train", **ASKED)

    arguments = (place(device), *to_device((IMAGES.images, IMAGES.first), device))
    program = tm.record(step, *arguments)
    for task in (2**32 - 1, 2**32 + 1):
        (support, query), after = program(*arguments)
        expected = episodes.sample(IMAGES, 7, "train", task, **ASKED)
        same(support, expected.support)
        same(query, expected.query)
        arguments = (after, *arguments[1:])


def test_sinusoids(device: str) -> None:
    ranges = {"amplitude": (0.1, 5.0), "phase": (0.0, 3.0), "x": (-5.0, 5.0)}

    def step(at: Any) -> Any:
        return sampling.sinusoids(at, dtype="float64", tasks=4, parts=(3, 5), task_inputs=True, split="test", **ranges)

    (one, other), after = to_host(tm.record(step, place(device))(place(device)))
    expected = sinusoid.sample(7, "test", 2**32 - 1, 4, 8, dtype=np.float64, **ranges)
    np.testing.assert_array_equal(np.concatenate([one["x"], other["x"]], 1)[..., :1], expected.x)
    np.testing.assert_allclose(np.concatenate([one["y"], other["y"]], 1), expected.y, rtol=0, atol=1e-14)
    for i, told in ((1, expected.amplitude), (2, expected.phase)):
        np.testing.assert_array_equal(one["x"][..., i], np.repeat(told[:, None], 3, 1))
    assert after.tolist() == [7, 2**32 + 3]


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_labels_that_were_drawn_are_known_to_be_below_the_number_of_ways(classes: int) -> None:
    def step(at: Any, images: Any, first: Any, logits: Any) -> Any:
        (support, _), _ = sampling.episodes(at, images, first, dtype="float32", split="train", **ASKED)
        return tm.softmax_cross_entropy(logits, support["y"])

    arguments = (place("cpu"), IMAGES.images, IMAGES.first, np.zeros((2, 3, classes)))
    if classes < ASKED["ways"]:
        with pytest.raises(RecordingError, match="labels must be known before a recorded step runs"):
            tm.record(step, *arguments)
    else:
        np.testing.assert_allclose(tm.record(step, *arguments)(*arguments), np.log(classes), rtol=1e-12)
