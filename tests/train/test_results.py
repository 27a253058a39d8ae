"""results.json and its table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cases.results_cases import entry, image_entry, provenance, rl_entry, user_entry
from tests.conftest import ROOT
from tinymaml.experiments.control import table as rl_table
from tinymaml.experiments.few_shot import table as image_table
from tinymaml.experiments.sinusoid import table as sinusoid_table
from tinymaml.experiments.sinusoid.settings import SinusoidSettings
from tinymaml.train import report, results


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    results.merge(path, "sinusoid", "maml", entry(0.6, diverged=2, best=True))
    results.merge(path, "sinusoid", "pretrained", entry(2.4))
    return path


def test_the_summary_against_plain_numpy() -> None:
    errors = np.array([1.0, 2.0, 4.0, np.inf])
    found = results.figures([errors[:3].repeat(2)[:4], errors], np.array([False, False, False, True]))
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
        (
            '{"format": 2, "experiment": "sinusoid", "methods": {"maml": 3}}',
            "is damaged: maml has no better, details, domain, iterations, machine, metric, parameters",
        ),
        ('{"format": 0, "experiment": "sinusoid", "methods": {}}', "is not a results file: there is no format 0"),
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
    (first, figures), *_ = whole["parameters"]["last"]["figures"].items()
    one = whole["details"]["sketches"][0]
    one = {**one, "x": one["x"][:3], "steps": {"1": one["steps"]["1"][:3]}}
    parameters = {
        results.LAST: results.measured(70_000, {first: figures}),
        results.BEST_IN_VALIDATION: results.measured(40_000, {first: figures}),
    }
    return {**whole, "parameters": parameters, "details": {"sketches": [one]}}


def few_conditions(whole: dict[str, Any]) -> dict[str, Any]:
    """With figures of the first and the last condition alone."""
    for measured in whole["parameters"].values():
        first, *_, last = measured["figures"].items()
        measured["figures"] = dict([first, last])
    return whole


TABLES: dict[str, tuple[dict[str, Any], Callable[[Any], str]]] = {
    "sinusoid": (small(entry(0.6, diverged=2, best=True)), sinusoid_table.table),
    "omniglot-5way-1shot": (few_conditions(image_entry(0.9)), image_table.table),
    "navigation": (rl_entry(-10.0), rl_table.table),
    "oscillators": (user_entry(0.5, 2), report.table),
}
OLD = ROOT / "tests" / "cases" / "results_format_1"
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
            if key not in ("versions", "machine", "settings", "sketches"):
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
            text = json.dumps({"format": 2, "experiment": name, "methods": {"maml": changed(whole, place, odd)}})
            path.write_text(re.sub('"@(.*)@"', r"\1", text))
            try:
                for make in (table, report.table):  # that of the domain, and that of any
                    assert "\x1b" not in make(results.load(path, name))
            except results.ResultsError as error:
                refused += 1
                assert re.match(rf"([^\n]*results\.json is|the results of {name} are) damaged: ", str(error))
    assert refused > 10 * len(list(places(whole)))


@pytest.mark.parametrize("name", [name for name in TABLES if name != "oscillators"])
def test_what_a_domain_misses_in_the_protocol_is_named(tmp_path: Path, name: str) -> None:
    path, (whole, table) = tmp_path / "results.json", TABLES[name]
    for key in whole["protocol"]:
        if key == "query_per_class":  # is shown nowhere
            continue
        protocol = {other: value for other, value in whole["protocol"].items() if other != key}
        found = {"format": 2, "experiment": name, "methods": {"maml": {**whole, "protocol": protocol}}}
        path.write_text(json.dumps(found))
        with pytest.raises(results.ResultsError, match=f"(is|are) damaged: maml's protocol has no {key}"):
            table(results.load(path, name))
        if key != "tasks":
            assert "MAML: seed 3" in report.table(results.load(path, name))


@pytest.mark.parametrize("changes", [{"last": None}, {"last": {"iteration": 1, "figures": {}}}], ids=str)
def test_an_entry_without_last_parameters_or_figures_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = user_entry(0.5)
    whole["parameters"] = {name: value for name, value in changes.items() if value}
    with pytest.raises(results.ResultsError, match=r"(have no 'last'|figures are of no condition)"):
        results.merge(tmp_path / "results.json", "oscillators", "maml", whole)


@pytest.mark.parametrize("path", sorted(OLD.glob("*.json")), ids=lambda path: path.stem)
def test_the_table_of_results_of_format_1_is_what_it_was(path: Path, tmp_path: Path) -> None:
    """To the character; those in docs are the same files, in format 2."""
    found = results.load(path)
    assert found["format"] == results.FORMAT
    domain = next(iter(found["methods"].values()))["domain"]
    table = {"sinusoid": sinusoid_table, "few-shot": image_table, "control": rl_table}[domain].table
    assert table(found) + "\n" == path.with_suffix(".txt").read_text()
    converted = ROOT / "docs" / "results" / path.stem / "results.json"
    if path.stem in ("sinusoid", "images"):  # made up
        for method, whole in found["methods"].items():
            results.merge(tmp_path / "results.json", found["experiment"], method, whole)
        converted = tmp_path / "results.json"
    assert json.loads(converted.read_text()) == found


def test_results_of_format_1_are_held_to_their_schema(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for name in ("sinusoid", "images", "cheetah-direction"):
        whole = json.loads((OLD / f"{name}.json").read_text())
        for key in whole["methods"]["maml"]:
            maml = {other: value for other, value in whole["methods"]["maml"].items() if other != key}
            path.write_text(json.dumps({**whole, "methods": {"maml": maml}}))
            with pytest.raises(
                results.ResultsError, match=rf"is damaged: maml has no ({key}|accuracy, returns or shots)$"
            ):
                results.load(path)


def test_merging_into_a_file_of_format_1_converts_it(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes((OLD / "sinusoid.json").read_bytes())
    results.merge(path, "sinusoid", "new", entry(0.5))
    found = json.loads(path.read_text())
    assert found["format"] == 2
    assert set(found["methods"]) == {"maml", "fomaml", "pretrained", "oracle", "new"}
    assert found["methods"]["maml"]["domain"] == "sinusoid"


def test_figures_of_another_shape_are_refused() -> None:
    good = np.zeros((3, 4))
    assert results.figures(good)["mean"] == [0.0, 0.0, 0.0]
    assert "diverged" not in results.figures(good)
    for scores in (np.zeros(4), np.zeros((0, 4)), np.zeros((2, 0)), np.zeros((2, 3, 4)), [np.zeros(3), np.zeros(4)]):
        with pytest.raises(ValueError, match=r"scores must be \[steps \+ 1, tasks\], its rows are"):
            results.figures(scores)
    for diverged in (np.zeros(3, np.bool_), np.zeros(4)):
        with pytest.raises(ValueError, match=r"diverged must be booleans \[4\]"):
            results.figures(good, diverged)


def test_scores_that_are_not_finite_have_no_figures() -> None:
    found = results.figures(np.array([[1.0, np.nan], [np.inf, -np.inf], [np.inf, 1.0]]))
    assert found == {"mean": [None] * 3, "half_width": [None] * 3, "median": [None] * 3}


def test_an_entry_says_what_is_wrong_with_it() -> None:
    with pytest.raises(ValueError, match="mine's better is 'more'"):
        results.entry(
            domain="mine",
            metric="points",
            better="more",  # type: ignore[arg-type]
            protocol={"tasks": 3},
            provenance=provenance(SinusoidSettings(), 10, 1.0),
            parameters={results.LAST: results.measured(10, {"new tasks": results.figures(np.ones((1, 3)))})},
        )


WIDE = """
oscillators: root mean squared error, m; new tasks; after inner steps (lower is better)

                            0                1                2                3                5                7
MAML            0.625 ± 0.070    0.312 ± 0.035    0.208 ± 0.023    0.156 ± 0.017    0.104 ± 0.012  0.0781 ± 0.0087
mine            0.378 ± 0.039

MAML: seed 3, 200 iterations, 2 s, 30 test tasks
mine: seed 3, 200 iterations, 2 s, 30 test tasks"""


def test_the_table_of_a_domain_that_is_not_the_packages(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for method, level, steps in (("maml", 0.6, 7), ("mine", 0.4, 0)):
        results.merge(path, "oscillators", method, user_entry(level, steps))
    assert report.table(results.load(path)) == WIDE


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
        ("inner steps", maml["parameters"]["last"]["figures"]["5 support points"]["half_width"]),
        ("support points", maml["details"]["sketches"][0]["support_x"]),
        ("x", maml["details"]["sketches"][0]["steps"]["1"]),
    ):
        last = values.pop()
        path.write_text(json.dumps(found))
        with pytest.raises(results.ResultsError, match=f"has lists over {name} of"):
            results.check_domain(results.load(path, "sinusoid"), sinusoid_table.Protocol, sinusoid_table.Details)
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
    found = results.load(path, "sinusoid")["methods"]["maml"]["parameters"]["last"]["figures"]["5 support points"]
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


@pytest.mark.parametrize(("iterations", "said"), [(69_999, False), (70_000, True)])
def test_a_run_of_fewer_iterations_than_the_papers_gets_no_verdict(tmp_path: Path, iterations: int, said: bool) -> None:
    path = tmp_path / "results.json"
    results.merge(path, "sinusoid", "maml", entry(0.6, iterations=iterations))
    text = sinusoid_table.table(results.load(path))
    assert ("the paper's figure or under, up to our interval" in text) == said
    assert ("MAML: fewer iterations than the paper's: no verdict" in text) != said
    results.merge(tmp_path / "images.json", "omniglot", "maml", image_entry(0.95, iterations=iterations - 10_000))
    text = image_table.table(results.load(tmp_path / "images.json"))
    assert ("MAML, best: the published figure or above, up to our interval: no" in text) == said
    assert ("MAML, best: fewer iterations than the paper's: no verdict" in text) != said


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
    found = results.load(path, "sinusoid")["methods"]["oracle"]["parameters"]["last"]["figures"]["5 support points"]
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
