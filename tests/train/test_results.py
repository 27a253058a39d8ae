"""results.json and its table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cases.results_cases import entry, image_entry, rl_entry
from tests.conftest import ROOT
from tinymaml.experiments.control import table as rl_table
from tinymaml.experiments.few_shot import table as image_table
from tinymaml.experiments.sinusoid import table as sinusoid_table
from tinymaml.train import results


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    results.merge(path, "sinusoid", "maml", entry(0.6, diverged=2, best=True))
    results.merge(path, "sinusoid", "pretrained", entry(2.4))
    return path


def test_the_summary_against_plain_numpy() -> None:
    errors = np.array([1.0, 2.0, 4.0, np.inf])
    found = results.summary([errors[:3].repeat(2)[:4], errors], np.array([False, False, False, True]))
    assert found["mean"] == [pytest.approx(np.mean([1, 1, 2, 2])), None]
    assert found["half_width"][0] == pytest.approx(1.96 * np.std([1, 1, 2, 2], ddof=1) / 2)
    assert found["half_width"][1] is None
    assert found["mean_converged"][1] == pytest.approx(7 / 3)
    assert found["half_width_converged"][1] == pytest.approx(1.96 * np.std([1, 2, 4], ddof=1) / np.sqrt(3))
    assert found["median"][1] == 3
    assert found["diverged"] == 1


def test_merging_keeps_the_others(path: Path) -> None:
    results.merge(path, "sinusoid", "maml", entry(0.7))
    found = results.load(path, "sinusoid")
    assert set(found["methods"]) == {"maml", "pretrained"}
    assert found["methods"]["pretrained"] == json.loads(json.dumps(entry(2.4)))
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_unusable_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(results.ResultsError, match=r"results\.json is not there"):
        results.load(path, "sinusoid")
    for text, message in (
        ("{", "is not JSON"),
        ("[]", "is not a results file"),
        ('{"methods": {}}', "is not a results file"),
        ('{"format": 99, "methods": {}}', "made by a newer tinymaml"),
        ('{"format": "new", "methods": {}}', "is not a results file"),
        ('{"format": null, "methods": {}}', "is not a results file"),
        (
            '{"format": 1, "experiment": "sinusoid", "methods": {"maml": 3}}',
            "is damaged: maml has no accuracy, returns or shots",
        ),
        (
            '{"format": 1, "experiment": "sinusoid", "methods": {"maml": {"shots": 1}}}',
            "is damaged: maml has no best, iterations",
        ),
    ):
        path.write_text(text)
        with pytest.raises(results.ResultsError, match=message):
            results.merge(path, "sinusoid", "maml", entry(0.6))
        assert path.read_text() == text
    path.write_text('{"format": 1, "experiment": "omniglot", "methods": {}}')
    with pytest.raises(results.ResultsError, match="is of omniglot, not of sinusoid"):
        results.merge(path, "sinusoid", "maml", entry(0.6))


DEEP = "[" * 100_000 + "]" * 100_000
DEEP_OR_LARGE = {
    "list": DEEP,
    "inside": f'{{"format": 1, "methods": {DEEP}}}',
    "less": "[" * 500 + "]" * 500,
    "objects": '{"a":' * 50_000,
    "digits": "9" * 10_000,
    "bytes": "\xff",
    "large": " " * (results.MOST + 1),
}


def small(whole: dict[str, Any]) -> dict[str, Any]:
    """With one number of support points, one task's curves, and few points of them."""
    shots = {"5": whole["shots"]["5"]}
    one = whole["qualitative"][0]
    one = {**one, "x": one["x"][:3], "steps": {"1": one["steps"]["1"][:3]}}
    return {**whole, "shots": shots, "best": {"iteration": 40_000, "shots": shots}, "qualitative": [one]}


TABLES: dict[str, tuple[dict[str, Any], Callable[[Any], str]]] = {
    "sinusoid": (small(entry(0.6, diverged=2, best=True)), sinusoid_table.table),
    "omniglot-5way-1shot": (image_entry(0.9), image_table.table),
    "navigation": (rl_entry(-10.0), rl_table.table),
}
# In the place of any value; what is between two @ is not JSON that Python writes.
ODD = (
    *(None, True, -1, 1.5, 10**400, "x", "\x1b[2J", [], [None], {}, {"²": 1}, {"x": {}}),
    *("@1e999@", "@NaN@", "@[[1]]@"),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values are that tables and pictures are made of, of each list the first."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in ("versions", "machine", "settings"):
                yield from places(item, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("name", TABLES)
def test_whatever_is_in_the_place_of_a_value_the_table_is_made_or_the_file_is_named(tmp_path: Path, name: str) -> None:
    path, (whole, table) = tmp_path / "results.json", TABLES[name]
    refused = 0
    for place in places(whole):
        for odd in ODD:
            text = json.dumps({"format": 1, "experiment": name, "methods": {"maml": changed(whole, place, odd)}})
            path.write_text(re.sub('"@(.*)@"', r"\1", text))
            try:
                found = results.load(path, name)
            except results.ResultsError as error:
                refused += 1
                assert re.match(r"[^\n]*results\.json is damaged: ", str(error))
            else:
                assert "\x1b" not in table(found)
    assert refused > 10 * len(list(places(whole)))


@pytest.mark.parametrize("name", TABLES)
def test_what_is_missing_is_named(tmp_path: Path, name: str) -> None:
    path, (whole, _) = tmp_path / "results.json", TABLES[name]
    for key in whole["protocol"]:
        if key in ("ways", "query_per_class"):  # is shown nowhere
            continue
        protocol = {other: value for other, value in whole["protocol"].items() if other != key}
        found = {"format": 1, "experiment": name, "methods": {"maml": {**whole, "protocol": protocol}}}
        path.write_text(json.dumps(found))
        with pytest.raises(results.ResultsError, match=f"is damaged: maml's protocol has no {key}"):
            results.load(path, name)


@pytest.mark.parametrize("what", DEEP_OR_LARGE)
def test_deep_and_large_files_are_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(DEEP_OR_LARGE[what].encode("latin1"))
    with pytest.raises(results.ResultsError, match=r"results\.json (is not JSON|has more than the 16,777,216 bytes)"):
        results.load(path, "sinusoid")


def test_lists_of_other_lengths_are_damage(path: Path) -> None:
    found = json.loads(path.read_text())
    maml = found["methods"]["maml"]
    for name, values in (
        ("inner steps", maml["shots"]["5"]["half_width"]),
        ("support points", maml["qualitative"][0]["support_x"]),
        ("x", maml["qualitative"][0]["steps"]["1"]),
    ):
        last = values.pop()
        path.write_text(json.dumps(found))
        with pytest.raises(results.ResultsError, match=f"has lists over {name} of"):
            results.load(path, "sinusoid")
        values.append(last)
    path.write_text(json.dumps(found))
    results.load(path, "sinusoid")


def test_a_file_that_would_not_be_read_again_is_not_written(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(results.ResultsError, match=r"would have [\d,]+ bytes with maml, more than the 16,777,216"):
        results.merge(path, "sinusoid", "maml", {**entry(0.6), "machine": "x" * results.MOST})
    assert path.read_bytes() == before


def test_results_that_were_published_are_read() -> None:
    """Those in docs, of images and of reinforcement learning."""
    found = sorted((ROOT / "docs" / "results").glob("*/results.json"))
    assert found
    for path in found:
        assert results.load(path, json.loads(path.read_text())["experiment"])["methods"]


def test_the_table_has_our_figures_beside_the_papers(path: Path) -> None:
    text = sinusoid_table.table(results.load(path, "sinusoid"))
    found = results.load(path, "sinusoid")["methods"]["maml"]["shots"]["5"]
    assert f"{found['mean'][1]:.2f} ± {found['half_width'][1]:.2f}* [0.67]" not in text  # before any task left
    assert f"{found['mean'][1]:.2f} ± {found['half_width'][1]:.2f} [0.67]" in text
    assert "diverged* [0.38]" in text
    assert "2.41" in text
    assert "MAML, best" in text
    assert "MAML, 5 points: diverged on 2; without them" in text
    assert "MAML: the paper's figure or under, up to our interval, after 1: yes, 5: no, 10: no" in text
    assert "seed 3, 70000 iterations, 101 s, best in validation at 40000" in text
    assert "pretrained: step sizes tried on validation tasks with 5 points: 0.01: 2.50, 0.1: diverged" in text
    assert "pretrained: the paper's figure or under, up to our interval, after 1: yes" in text
    assert "oracle" not in text


def test_an_interval_wider_than_the_figure_proves_nothing() -> None:
    assert sinusoid_table._reached(0.4, 0.05, 0.38)
    assert not sinusoid_table._reached(0.5, 0.05, 0.38)
    assert not sinusoid_table._reached(11.0, 21.0, 0.38)
    assert not sinusoid_table._reached(None, None, 0.38)


def test_the_table_without_a_figure_of_the_papers_and_with_a_method_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for method, level in (("new", 0.5), ("oracle", 0.004), ("fomaml", 0.6)):
        results.merge(path, "sinusoid", method, entry(level))
    rows = sinusoid_table.table(results.load(path, "sinusoid")).splitlines()
    names = [row.split("  ")[0] for row in rows[4:7]]
    assert names == ["MAML, first order", "oracle", "new"]
    found = results.load(path, "sinusoid")["methods"]["oracle"]["shots"]["5"]
    assert f"{found['mean'][1]:.4f} ± {found['half_width'][1]:.4f} [ –  ]" in rows[5]  # more digits of small errors
    assert not any("the paper's figure or under" in row for row in rows)


def test_a_failed_write_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.merge(path, "sinusoid", "maml", {**entry(0.6), "seconds": float("nan")})
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        results.merge(path, "sinusoid", "maml", entry(0.6))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
