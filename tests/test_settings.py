"""Settings come back from JSON as they were, or what is wrong in them is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tinymaml.train.experiments import EXPERIMENTS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_they_come_back_from_json(name: str) -> None:
    settings = EXPERIMENTS[name].settings
    found = json.loads(json.dumps(settings.as_dict() | {"of a newer version": [1]}))
    assert type(settings).from_dict(found) == settings


@pytest.mark.parametrize("name", ["sinusoid", "omniglot-5way-1shot", "ant-direction"])
def test_a_value_of_another_type_is_named(name: str) -> None:
    settings = EXPERIMENTS[name].settings
    values = settings.as_dict()
    for key, value in values.items():
        odd: list[Any] = ["x", 1, 1.5, True, None, [], [1], ["x"], [1.5], [[1]], {}, {"a": 1}, -1, 10**400]
        wrong = [other for other in odd if type(other) is not type(value)]
        for other in wrong:
            try:
                type(settings).from_dict({**values, key: other})
            except ValueError as error:
                assert "\n" not in str(error)
    for key, other in (
        ("seed", "x"),
        ("record", 1),
        ("hidden", [1, "x"]),
        ("hidden", 40),
        ("alpha", [0.1]),
        ("steps", 1.0),
    ):
        with pytest.raises(ValueError, match=f"^{key} cannot be "):
            type(settings).from_dict({**values, key: other})
