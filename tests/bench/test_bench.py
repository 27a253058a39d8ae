"""What the bench computes around its timings; the timings themselves are no test."""

import json

import numpy as np
import pytest

import tinymaml as tm
from bench import ours
from bench.arguments import parse
from bench.implementations import chosen
from bench.output import write_json
from bench.parts.frameworks import distance
from bench.timing import fitted_exponent, interleaved
from bench.worker import Failed, Worker
from bench.workloads import WORKLOADS, leaves


def test_lists_have_commas():
    args = parse(["frameworks", "--workloads", "W1,W2a", "--peers", "jax,torch-loop", "--orders", "2"])
    assert args.workloads == ["W1", "W2a"]
    assert args.peers == ["jax", "torch-loop"]
    assert args.orders == [2]


@pytest.mark.parametrize(
    "wrong",
    ["--workloads W9", "--peers jax,", "--rounds 0", "kernels --workloads W1", "hvp --picture a.png"],
)
def test_what_is_wrong_is_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        parse(wrong.split())
    assert "error" in capsys.readouterr().err


def test_whose_turn_it_is():
    def names(*arguments):
        runnable, left_out = chosen(*arguments)
        return {one.name for one in runnable} | set(left_out)

    ours = {"tinymaml-replay", "tinymaml-eager"}
    assert names("W1", 2, ["none"]) == ours
    assert names("W1", 2, ["jax"]) == ours | {"jax-tuned", "jax-plain"}
    assert names("W4", 2, ["jax"]) == ours | {"jax-tuned"}
    assert names("W4", 2, ["jax-plain"]) == ours | {"jax-plain"}
    assert "tinymaml-numpy" in names("W4", 2, None)


def test_a_fitted_exponent_is_that_of_the_upper_half():
    xs = [1, 2, 4, 8, 16, 32]
    assert fitted_exponent(xs, [100, 100, 100, 8**1.5, 16**1.5, 32**1.5]) == pytest.approx(1.5)


def test_slow_turns_sit_rounds_out(monkeypatch):
    monkeypatch.setattr("bench.timing.PAUSE", 0)
    times = interleaved({"quick": lambda warm: 1.0, "slow": lambda warm: 5000.0}, 10)
    assert (len(times["quick"]), len(times["slow"])) == (10, 3)


def test_the_leanest_algorithm():
    gflop = {name: w.gflop(2) for name, w in WORKLOADS.items()}
    assert gflop == pytest.approx({"W1": 0.00996, "W2a": 9.98, "W2b": 45.2, "W3": 79.8, "W4": 88.7}, rel=5e-3)


@pytest.mark.parametrize("workload", ["W1", "W2a"])
def test_data_are_the_same_in_both_dtypes_and_our_gradient_takes_them(workload):
    w = WORKLOADS[workload]
    single, double = (w.data(np.dtype(dtype), 2) for dtype in ("float32", "float64"))
    for a, b in zip(tm.tree.leaves(single), tm.tree.leaves(double), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(a is b for a, b in zip(leaves(single[0]), tm.tree.leaves(single[0]), strict=True))
    gradients = [ours.ours_eager(w, *data, 2)[0]() for data in (double, single)]
    assert 0 < distance(*gradients) < 1e-3


def test_json_replaces_a_file_as_a_whole(tmp_path):
    path = tmp_path / "found.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_json(path, {}, [{"median_ms": object()}])
    assert path.read_text() == "old"
    write_json(path, {"cores": 2}, [{"median_ms": 1.5}])
    assert json.loads(path.read_text())["rows"] == [{"median_ms": 1.5}]
    assert list(tmp_path.iterdir()) == [path]


def test_a_worker_says_why_it_failed(capfd):
    with Worker("bench.machine:Machine", (), {}) as worker, pytest.raises(Failed, match="no attribute 'nothing'"):
        worker.ask("nothing")
    assert "Traceback" in capfd.readouterr().err
