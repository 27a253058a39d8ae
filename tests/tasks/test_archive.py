"""Files of others are checked before use: archives and folders made to do harm, and downloads that go wrong."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import stat
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cases.image_cases import PICKLE, lay_out, pack
from tinymaml.tasks.archive import DataError, Limits, download, open_files
from tinymaml.tasks.atomic_files import replacing

LIMITS = Limits(files=10, each=1000, total=2000)
FILES = {"a/one.png": b"one" * 50, "a/two.png": b"two", "b.png": b""}


def read(path: Path, limits: Limits = LIMITS) -> dict[str, bytes]:
    with open_files(path, limits) as found:
        return {name: found.read(name) for name in found.names}


def test_folders_and_archives_give_the_same(tmp_path: Path) -> None:
    left = {".DS_Store": b"x", "a/Thumbs.db": b"x"}
    assert read(lay_out(tmp_path / "folder", FILES | left)) == FILES
    packed = pack(tmp_path / "some.zip", {"a/": b"", **FILES, **left, "__MACOSX/a/._one.png": b"x"})
    assert read(packed) == FILES
    with open_files(packed, LIMITS) as found:
        assert found.names == sorted(FILES)
        assert found.where("b.png") == f"b.png in {packed}"


@pytest.mark.parametrize(
    "name",
    [
        "../out",
        "/out",
        "a/../../out",
        "..",
        "./out",
        "a//out",
        "C:\\out",
        "C:out",
        "a\\..\\out",
        "a/..",
        "\\\\host\\out",
    ],
)
def test_members_that_leave_the_target_are_refused(tmp_path: Path, name: str) -> None:
    pack(tmp_path / "some.zip", {"good.png": b"", name: b"x"})
    with pytest.raises(DataError, match=r"some\.zip has a member that could leave its folder") as refused:
        read(tmp_path / "some.zip")
    assert repr(name) in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["some.zip"]


def test_a_name_with_a_zero_byte_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "some.zip", {"good.pngQ/../x": b"x"})
    path.write_bytes(path.read_bytes().replace(b"good.pngQ", b"good.png\0"))
    with pytest.raises(DataError, match="could leave its folder"):
        read(path)


@pytest.mark.parametrize(
    ("kind", "said"), [(stat.S_IFLNK, "is a symbolic link"), (stat.S_IFIFO, "is neither a file nor a folder")]
)
def test_special_members_are_refused(tmp_path: Path, kind: int, said: str) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        member = zipfile.ZipInfo("link.png")
        member.create_system, member.external_attr = 3, (kind | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match=rf"link\.png in .*some\.zip {said}"):
        read(tmp_path / "some.zip")


def test_duplicate_members_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "some.zip", {"a.png": b"1", "b.png": b"2"})
    path.write_bytes(path.read_bytes().replace(b"b.png", b"a.png"))
    with pytest.raises(DataError, match=r"a\.png is in .*some\.zip twice"):
        read(path)


def patched(path: Path, place: int, form: str, value: int) -> Path:
    """Change a field of the first entry in the list of members at the archive's end."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(b"PK\1\2") + place, value)
    path.write_bytes(data)
    return path


def test_encrypted_and_otherwise_packed_members_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png in .* is encrypted"):
        read(patched(pack(tmp_path / "one.zip", {"a.png": b"1"}), 8, "<H", 1))
    with zipfile.ZipFile(tmp_path / "two.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", b"1")
    with pytest.raises(DataError, match=r"a\.png in .* is packed by method 12"):
        read(tmp_path / "two.zip")


def test_bombs_are_refused(tmp_path: Path) -> None:
    many = pack(tmp_path / "many.zip", {f"{i}.png": b"" for i in range(11)})
    with pytest.raises(DataError, match=r"many\.zip has 11 files and folders, more than the 10"):
        read(many)
    with pytest.raises(DataError, match=r"large\.png in .*large\.zip has 1,001 bytes, more than the 1,000"):
        read(pack(tmp_path / "large.zip", {"large.png": bytes(1001)}))
    with pytest.raises(DataError, match=r"all\.zip has 2,700 bytes in its files, more than the 2,000"):
        read(pack(tmp_path / "all.zip", {f"{i}.png": bytes(900) for i in range(3)}))
    padded = tmp_path / "padded.zip"
    padded.write_bytes(bytes(20_000) + many.read_bytes())
    with pytest.raises(DataError, match=r"padded\.zip has .* bytes, more than the"):
        read(padded)


@pytest.mark.parametrize("said", [0, 10, 999])
def test_members_that_lie_about_their_size_are_refused(tmp_path: Path, said: int) -> None:
    path = patched(pack(tmp_path / "some.zip", {"a.png": os.urandom(100) + bytes(10**6)}), 24, "<I", said)
    with pytest.raises(DataError, match=r"a\.png in .*some\.zip is damaged"):
        read(path)
    path = patched(pack(tmp_path / "some.zip", {"a.png": b"short"}), 24, "<I", said + 6)
    with pytest.raises(DataError, match=r"a\.png in .*some\.zip"):
        read(path)


def test_truncated_archives_are_refused(tmp_path: Path) -> None:
    data = pack(tmp_path / "some.zip", FILES).read_bytes()
    for length in range(len(data)):
        (tmp_path / "some.zip").write_bytes(data[:length])
        with pytest.raises(DataError, match=r"some\.zip"):
            read(tmp_path / "some.zip")


def test_changed_archives_are_refused_or_give_the_same_files(tmp_path: Path) -> None:
    path = pack(tmp_path / "some.zip", FILES)
    data, refused = path.read_bytes(), 0
    for place in range(len(data)):
        for bit in (1, 0x80):
            changed = bytearray(data)
            changed[place] ^= bit
            path.write_bytes(changed)
            try:
                found = read(path)
            except DataError:
                refused += 1
            else:
                assert sorted(found.values()) == sorted(FILES.values()), place
    assert refused > len(data) / 2


@pytest.mark.skipif(os.name == "nt", reason="links and pipes need rights that Windows does not give everyone")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.symlink_to("b.png"), "is a symbolic link"),
        (lambda path: path.symlink_to("/etc", target_is_directory=True), "is a symbolic link"),
        (lambda path: path.symlink_to("nowhere"), "is a symbolic link"),
        (lambda path: os.mkfifo(path), "is neither a file nor a folder"),
    ],
    ids=["to a file", "to a folder", "to nothing", "a pipe"],
)
def test_links_and_pipes_in_folders_are_refused(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    lay_out(tmp_path, FILES)
    make(tmp_path / "a" / "odd.png")
    with pytest.raises(DataError, match=rf"odd\.png {said}"):
        read(tmp_path)


def test_folders_that_are_too_large_are_refused(tmp_path: Path) -> None:
    lay_out(tmp_path / "large", {"large.png": bytes(1001)})
    with pytest.raises(DataError, match=r"large\.png has 1,001 bytes"):
        read(tmp_path / "large")
    lay_out(tmp_path / "many", {f"{i}/{i}.png": b"" for i in range(6)})
    with pytest.raises(DataError, match="many has more than the 10 files and folders"):
        read(tmp_path / "many")
    lay_out(tmp_path / "all", {f"{i}.png": bytes(900) for i in range(3)})
    with pytest.raises(DataError, match="all has 2,700 bytes in its files"):
        read(tmp_path / "all")
    lay_out(tmp_path / "growing", {"a.png": b"1"})
    with open_files(tmp_path / "growing", LIMITS) as found:
        (tmp_path / "growing" / "a.png").write_bytes(bytes(1001))
        with pytest.raises(DataError, match=r"a\.png has more than the 1,000 bytes"):
            found.read("a.png")


@pytest.mark.parametrize("name", ["cache.pkl", "cache.PICKLE", "cache.pkl.gz", "model.pt"])
def test_pickles_are_refused_with_the_reason(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path / "folder", {f"a/{name}": PICKLE})
    pack(tmp_path / "some.zip", {f"a/{name}": PICKLE})
    for path in (tmp_path / "folder", tmp_path / "some.zip", tmp_path / "folder" / "a" / name):
        with pytest.raises(DataError, match=rf"{name} .*is a pickle.*unpickling runs whatever code") as refused:
            read(path)
        assert name in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "some.zip"]


def test_what_is_neither_folder_nor_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        read(tmp_path / "nowhere")
    lay_out(tmp_path, {"some.txt": b"text", "some.zip": b"text"})
    with pytest.raises(DataError, match=r"some\.txt is neither a folder nor a zip archive"):
        read(tmp_path / "some.txt")
    with pytest.raises(DataError, match=r"some\.zip is not a whole zip archive"):
        read(tmp_path / "some.zip")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "some.h5"
    with replacing(path) as temporary:
        temporary.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="stop"), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("stop")
    assert [p.name for p in path.parent.iterdir()] == ["some.h5"]

    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    for function in ("fsync", "replace"):
        with (
            monkeypatch.context() as patch,
            pytest.raises(OSError, match="No space left"),
            replacing(path) as temporary,
        ):
            patch.setattr(os, function, fail)
            temporary.write_bytes(b"new")
        assert [p.name for p in path.parent.iterdir()] == ["some.h5"]
        assert path.read_bytes() == b"old"


CONTENT = os.urandom(300_000)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        said = {"/good": len(CONTENT), "/dies": len(CONTENT), "/short": 1000}.get(self.path)
        if said is not None:
            self.send_header("Content-Length", str(said))
        self.end_headers()
        sent = {"/dies": CONTENT[:100_000], "/short": CONTENT[:1000], "/long": CONTENT + b"x"}
        try:
            self.wfile.write(sent.get(self.path, CONTENT))
        except (BrokenPipeError, ConnectionResetError):
            assert self.path == "/long"

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_downloads_are_checked(server: str, tmp_path: Path) -> None:
    digest, said = hashlib.sha256(CONTENT).hexdigest(), list[tuple[int, int]]()
    path = tmp_path / "new" / "some.zip"
    download(f"{server}/good", path, len(CONTENT), digest, lambda done, total: said.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["some.zip"]
    assert said[-1] == (len(CONTENT), len(CONTENT))
    path.write_bytes(b"old")
    for page, size, expected, error, match in [
        ("good", len(CONTENT), "0" * 64, DataError, f"/good has the SHA-256 {digest}, not 0000"),
        ("good", len(CONTENT) - 1, digest, DataError, "more than 299,999 bytes; nothing was kept"),
        ("long", len(CONTENT), digest, DataError, "more than 300,000 bytes"),
        ("short", len(CONTENT), digest, DataError, "1,000 of 300,000 bytes"),
        ("dies", len(CONTENT), digest, (DataError, OSError), "/dies"),
        ("missing", len(CONTENT), digest, OSError, "/missing.* 404"),
    ]:
        with pytest.raises(error, match=match):
            download(f"{server}/{page}", path, size, expected)
        assert [p.name for p in path.parent.iterdir()] == ["some.zip"]
        assert path.read_bytes() == b"old"


def test_only_the_web_is_downloaded_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    lay_out(tmp_path, {"here.zip": b"x"})
    for address in ((tmp_path / "here.zip").as_uri(), "ftp://127.0.0.1/x", str(tmp_path / "here.zip")):
        with pytest.raises(DataError, match="is not an address of the web"):
            download(address, tmp_path / "some.zip", 1, hashlib.sha256(b"x").hexdigest())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        with pytest.raises(OSError, match=r"127\.0\.0\.1"):
            download(f"http://127.0.0.1:{taken.getsockname()[1]}/x", tmp_path / "some.zip", 1, "")
    assert [p.name for p in tmp_path.iterdir()] == ["here.zip"]
