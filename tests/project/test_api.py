"""`dir(tinymaml)` shows the public names, which docs/api.md lists, and each of them is there."""

import importlib
import re

import pytest

import tinymaml as tm
from tests.conftest import ROOT

LISTED = re.findall(r"^- `(\w+)`: \S.*$", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_documented_names_are_the_public_ones():
    assert len(LISTED) == len(set(LISTED)), "a name is listed twice"
    assert sorted(LISTED) == sorted(tm.__all__)
    assert dir(tm) == sorted(["__version__", *LISTED])


@pytest.mark.parametrize("name", LISTED)
def test_a_public_name_is_there(name):
    assert getattr(tm, name) is not None


def test_lazy_names_are_public_and_lead_where_they_say():
    for name, (module, attribute) in tm._LAZY.items():
        loaded = importlib.import_module(module)
        assert name in tm.__all__
        assert getattr(tm, name) is (getattr(loaded, attribute) if attribute else loaded)


def test_a_name_that_there_is_not():
    with pytest.raises(AttributeError, match="module 'tinymaml' has no attribute 'nothing'"):
        tm.nothing  # noqa: B018
