"""The fuzzer of files finds nothing, and would find what it looks for."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py", reason="checkpoints and data sets need h5py: pip install 'tinymaml[train,data]'")
pytest.importorskip("PIL.Image", reason="images need Pillow: pip install 'tinymaml[data]'")
pytest.importorskip("resource", reason="the limits of the fuzzer's processes are those of Unix")

from tests.fuzz import files
from tinymaml.tasks.archive import DataError


def test_no_mutated_file_is_more_than_its_reader_bears() -> None:
    done, failures = files.run(0, 100_000, 10)
    assert failures == []
    assert done >= 20 * len(files.KINDS)


@pytest.mark.slow
def test_none_of_many_is_more_than_its_reader_bears() -> None:
    done, failures = files.run(1, 100_000, 300)
    assert failures == []
    assert done >= 200 * len(files.KINDS)


def test_every_kind_is_both_refused_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a reader that refused all, or bore all, or that was never asked, nothing would be found."""
    outcomes: dict[str, set[bool]] = {}
    read, kind = files._read, ""

    def noted(*args: Any) -> Any:
        results = read(*args)
        outcomes.setdefault(kind, set()).add(results is not None)
        return results

    monkeypatch.setattr(files, "_read", noted)
    bases = files.Bases(tmp_path)
    # Of a checksum block any change is refused; lines of metrics are left out; a pipe is never read.
    apart = (files.forged_block, files.damaged_metrics, files.no_file)
    for number in range(100 * len(files.KINDS)):
        kind = files.kind_of(number).__name__
        if number < 25 * len(files.KINDS) or (len(outcomes.get(kind, ())) < 2 and files.kind_of(number) not in apart):
            files.run_case(bases, 0, number)
    for own in files.KINDS:
        if own not in apart:
            assert (own.__name__, outcomes[own.__name__]) == (own.__name__, {False, True})


# What the fuzzer has to find, as kinds of its own.


def harmless(case: Any) -> None:
    assert case.put("some", b"x").read_bytes() == b"x"


def crashes(case: Any) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(case: Any) -> None:
    time.sleep(60)


def fills_memory(case: Any) -> None:
    np.ones(files.MEMORY, np.uint16)


def raises_another_error(case: Any) -> None:
    files._read(lambda: {}["missing"], (DataError,))


def says_two_lines(case: Any) -> None:
    def read() -> None:
        raise OSError("one\ntwo")

    files._read(read, (OSError,))


def cannot_allocate(case: Any) -> None:
    def read() -> None:
        try:
            np.ones(1 << 60, np.uint8)
        except MemoryError as error:
            raise DataError("some.h5 is damaged") from error

    files._read(read, (DataError,))


KINDS = (
    harmless,
    crashes,
    hangs,
    fills_memory,
    raises_another_error,
    says_two_lines,
    cannot_allocate,
)


@pytest.mark.slow
def test_what_is_wrong_is_found() -> None:
    done, failures = files.run(5, len(KINDS), 60, kinds="tests.fuzz.test_fuzz_files", alarm=3)
    assert done == len(KINDS)
    for failure, (number, what) in zip(
        failures,
        [
            (1, "killed by signal 11"),
            (2, "never ended"),
            (3, "took "),
            (4, "KeyError"),
            (5, "not a line of text"),
            (6, "too much memory: some.h5 is damaged"),
        ],
        strict=True,
    ):
        assert failure.startswith(f"{KINDS[number].__name__}, --seed 5 --case {number}: ")
        assert what in failure
