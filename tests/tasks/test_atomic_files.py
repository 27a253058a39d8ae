"""Files are whole or not there, and what killed processes left goes: what is in use stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tinymaml.tasks.atomic_files import ENDING, replacing
from tinymaml.tasks.reading import NotAFile

pytest.importorskip("fcntl", reason="what killed processes left is told by locks, which Windows has not")

HOLD = """
import sys, time
from pathlib import Path
from tinymaml.tasks.atomic_files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print("begun", flush=True)
    sys.stdin.read()
    temporary.write_bytes(b"all")
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that writes the file, and is in the middle of it until it gets no more input."""
    command = [sys.executable, "-c", HOLD, str(path)]
    child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    return child


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(ENDING)]


def test_what_a_killed_process_left_goes_when_anything_is_written_there(tmp_path: Path) -> None:
    with holder(tmp_path / "some.h5") as child:
        child.kill()
    assert len(left(tmp_path)) == 1
    with replacing(tmp_path / "other.json") as temporary:
        temporary.write_bytes(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    with holder(tmp_path / "some.h5") as child:
        for _ in range(3):
            with replacing(tmp_path / "some.h5") as temporary:
                temporary.write_bytes(b"mine")
        assert (tmp_path / "some.h5").read_bytes() == b"mine"
        child.communicate("")
    assert child.returncode == 0
    assert (tmp_path / "some.h5").read_bytes() == b"all"
    assert left(tmp_path) == []


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "some.h5.123.tmp").write_bytes(b"another program's")
    (tmp_path / f"folder{ENDING}").mkdir()
    (tmp_path / f"link{ENDING}").symlink_to("some.h5.123.tmp")
    os.mkfifo(tmp_path / f"pipe{ENDING}")
    with replacing(tmp_path / "some.h5") as temporary:
        temporary.write_bytes(b"x")
    assert len(list(tmp_path.iterdir())) == 5


def test_many_write_the_same_file(tmp_path: Path) -> None:
    """From threads, which have one process's number: none takes away, or writes into, what another one writes."""
    wrong: list[BaseException] = []

    def work(letter: bytes) -> None:
        try:
            for _ in range(40):
                with replacing(tmp_path / "some.h5") as temporary:
                    temporary.write_bytes(letter * 1000)
                assert len(set((tmp_path / "some.h5").read_bytes())) == 1
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert [path.name for path in tmp_path.iterdir()] == ["some.h5"]


def test_it_is_as_readable_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"x")
    with replacing(tmp_path / "some.h5") as temporary:
        temporary.write_bytes(b"x")
    assert (tmp_path / "some.h5").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["folder", "", "pipe", "device"])
def test_only_files_are_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(NotAFile, match="not a file"), replacing(tmp_path / name if name else Path("")):
        pytest.fail("nothing is written")
    assert sorted(tmp_path.iterdir()) == before


DATA = """
import sys, time
from tinymaml.cli import main
from tinymaml.tasks import folder
decode = folder.decode
def slow(*args, **given):
    time.sleep(0.02)
    return decode(*args, **given)
folder.decode = slow
sys.exit(main(["data", "folder", "--name", "mine", "--size", "4", "4", "--from", sys.argv[1], "--out", sys.argv[2]]))
"""


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_preparation_that_is_stopped_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """At once, or, if it was killed, when the next one runs."""
    pytest.importorskip("h5py", reason="data sets need h5py: pip install 'tinymaml[data]'")
    pytest.importorskip("PIL.Image", reason="images need Pillow: pip install 'tinymaml[data]'")
    from tests.cases.image_cases import encoded, lay_out, noise

    picture = encoded(noise(0, 6, 6))
    names = [f"{s}/{s}{c}/{i}.png" for s in ("train", "val", "test") for c in range(20) for i in range(5)]
    lay_out(tmp_path / "in", dict.fromkeys(names, picture))
    out = tmp_path / "out" / "mine.h5"
    command = [sys.executable, "-c", DATA, str(tmp_path / "in"), str(out)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        while not (out.parent.is_dir() and left(out.parent)):
            time.sleep(0.01)
            assert child.poll() is None
        time.sleep(0.1)
        child.send_signal(number)
        _, said = child.communicate()
    if number == signal.SIGKILL:
        assert len(left(out.parent)) == 1
        with replacing(out.parent / "another") as temporary:
            temporary.write_bytes(b"x")
        (out.parent / "another").unlink()
    else:
        assert (child.returncode, said) == (130, "tinymaml: interrupted\n")
    assert list(out.parent.iterdir()) == []
