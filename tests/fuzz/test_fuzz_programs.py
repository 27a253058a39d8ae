"""Random programs, recorded and called with new inputs, beside eager; `python -m tests.fuzz programs` runs more."""

from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.programs import Case, Worker, draw, run
from tinymaml.kernels import cpu


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    results = Worker()
    yield results
    results.close()


@pytest.fixture(scope="module")
def gpu_worker() -> Iterator[Worker]:
    results = Worker("gpu")
    yield results
    results.close()


@given(st.data())
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_drawn_by_hypothesis(worker: Worker, data: st.DataObject) -> None:
    case = draw(lambda several: data.draw(st.sampled_from(list(several))))
    assert worker.check(case) is None, case


def test_drawn_by_a_generator() -> None:
    done, failures = run(seed=0, count=10_000, seconds=10)
    assert not failures, "\n".join(failures)
    assert done > 20, f"only {done} programs in ten seconds"


def test_as_a_gpus_launches(gpu: object) -> None:
    done, failures = run(seed=0, count=10_000, seconds=10, device="gpu")
    assert not failures, "\n".join(failures)
    assert done > 2, f"only {done} programs in ten seconds"


@pytest.mark.slow
@pytest.mark.parametrize(("device", "seconds"), [("cpu", 240), ("gpu", 120)])
def test_many(device: str, seconds: float, gpu: object) -> None:
    _, failures = run(seed=1, count=10_000, seconds=seconds, device=device)
    assert not failures, "\n".join(failures)


# What random programs found.


FOUND: dict[str, Case] = {
    "two regions split by rows, one reads all of the other": {
        "inputs": [[8, 5]], "closed over": [1], "dtype": "float64", "threads": 2, "cache": 64, "mode": "value",
        "instructions": [
            ["tanh", 0],
            ["index", 2, [[None, None, None], None]],
            ["index", 2, [None, [None, None, None]]],
            ["subtract", 3, 4],
            ["square", 5],
            ["sum", 6, [2], False],
        ],
        "outputs": [7],
    },
    "a sum of each row, read by every row": {
        "inputs": [[3, 3]], "closed over": [1], "dtype": "float64", "threads": 2, "cache": 64, "mode": "value",
        "instructions": [["exp", 0], ["square", 0], ["sum", 3, [1], False], ["multiply", 2, 4]], "outputs": [5],
    },
    "strides along an axis of length 1": {
        "inputs": [[1, 3]], "closed over": [1], "dtype": "float64", "threads": 1, "cache": 64, "mode": "value",
        "instructions": [["exp", 0], ["index", 2, [[None, None, -1]]], ["multiply", 2, 3]], "outputs": [4],
    },
    "LLVM's two models of what vectors cost disagree": {
        "inputs": [[64, 30]], "closed over": [1], "dtype": "float64", "threads": 1, "cache": 1 << 20,
        "mode": "gradient",
        "instructions": [
            ["square", 0],
            ["index", 0, [[None, None, None], [None, None, -1]]],
            ["square", 3],
            ["mean", 2, [0, 1], False],
            ["mean", 4, [0, 1], False],
            ["add", 5, 6],
        ],
        "outputs": [7],
    },
    "what a step closed over lies otherwise on a GPU": {
        "inputs": [[8, 5]], "closed over": [5, 8], "dtype": "float64", "threads": 2, "cache": 64, "mode": "value",
        "instructions": [["index", 1, [[1, None, 2], -1]], ["reshape", 2, [2, 1]], ["add", 3, 3]], "outputs": [4],
    },
    "a product of no matrices": {
        "inputs": [[2, 3]], "closed over": [3, 3], "dtype": "float64", "threads": 4, "cache": 64, "mode": "value",
        "instructions": [["index", 1, [None, [1, None], [None]]], ["index", 2, [[1, None]]], ["matmul", 3, 1]],
        "outputs": [4],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str, worker: Worker) -> None:
    assert worker.check(FOUND[name]) is None


@pytest.mark.parametrize("name", FOUND)
def test_found_on_a_gpu(name: str, gpu: object, gpu_worker: Worker) -> None:
    assert gpu_worker.check(FOUND[name]) is None


def test_a_process_that_ends_is_a_failure(worker: Worker) -> None:
    wrong = worker.check({"cache": 1})  # no case at all
    assert wrong is not None and "KeyError" in wrong
    worker._process.kill()
    worker._process.wait()
    assert worker.check(FOUND["strides along an axis of length 1"]) is not None
    assert worker.check(FOUND["strides along an axis of length 1"]) is None


@pytest.mark.skipif(not cpu.numba_is_used(), reason="without numba nothing is split")
def test_some_programs_are_split_by_rows() -> None:
    import tinymaml as tm
    from tests.fuzz.programs import _arrays, step_of

    inputs, closed_over = _arrays(case := FOUND["two regions split by rows, one reads all of the other"], 0)
    assert "8 rows" in tm.record(step_of(case, closed_over), *inputs).explain()
