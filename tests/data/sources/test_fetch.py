"""Downloads and archives: whole or not at all."""

import hashlib
import io
import multiprocessing
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from matinee.data.sources import fetch
from matinee.data.sources.fetch import cache_dir, download, extract, verify
from matinee.errors import MatineeError

CONTENT = bytes(range(256)) * 4096


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        self.send_response(404 if self.path == "/missing" else 200)
        if self.path != "/endless":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2 if self.path != "/whole" else None])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """Serve /whole, and answers that break off: /cut says how much should come, /endless not."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("MATINEE_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert cache_dir() == tmp_path / ".cache" / "matinee"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/matinee")
    monkeypatch.setenv("MATINEE_DATA", "~/data")
    assert cache_dir() == tmp_path / "data"


def test_download_once(server, tmp_path, capfd):
    target = tmp_path / "new" / "file"
    checksum = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    for _ in range(2):
        assert download(f"{server.url}/whole", target, checksum=checksum) == target
    assert target.read_bytes() == CONTENT
    assert server.requests == ["/whole"]
    assert visible(target.parent) == ["file"]
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "file" in captured.err


def test_two_processes_download_once(server, tmp_path):
    context = multiprocessing.get_context("spawn")
    arguments = (f"{server.url}/whole", tmp_path / "file")
    processes = [context.Process(target=download, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
        process.close()
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == ["/whole"]


@pytest.mark.parametrize(("page", "size"), [("cut", None), ("endless", len(CONTENT))])
def test_a_download_that_breaks_off_leaves_nothing(server, tmp_path, page, size):
    with pytest.raises(MatineeError, match=r"instead of 1,048,576 bytes; .* by hand"):
        download(f"{server.url}/{page}", tmp_path / "file", size=size)
    assert visible(tmp_path) == []


def test_what_a_killed_process_left_is_cleaned_up(server, tmp_path):
    (tmp_path / ".file.123.part").write_bytes(b"half")
    download(f"{server.url}/whole", tmp_path / "file")
    assert visible(tmp_path) == ["file"]


def test_wrong_checksum_names_both_and_the_file(server, tmp_path):
    found = hashlib.md5(CONTENT).hexdigest()
    with pytest.raises(MatineeError) as caught:
        download(f"{server.url}/whole", tmp_path / "file", checksum="md5:00ff")
    for part in (found, "00ff", str(tmp_path / "file")):
        assert part in str(caught.value)
    assert visible(tmp_path) == []
    (tmp_path / "file").write_bytes(b"other")
    with pytest.raises(MatineeError, match="MD5 checksum"):
        download(f"{server.url}/whole", tmp_path / "file", checksum="md5:00ff")
    with pytest.raises(MatineeError, match="SHA256 checksum"):
        verify(tmp_path / "file", "sha256:00ff")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "{server}/missing"])
def test_an_unreachable_file(server, tmp_path, url):
    with pytest.raises(MatineeError, match=r"could not be downloaded .*by hand"):
        download(url.format(server=server.url), tmp_path / "file")
    assert visible(tmp_path) == []


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MatineeError, match="set MATINEE_DATA"):
        download("http://127.0.0.1:9/x", tmp_path / "file" / "sub" / "target")


def zipped(path: Path, *members: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, "text")
    return path


def tarred(path: Path, *members: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            info = tarfile.TarInfo(member)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"text"))
    return path


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_extract(tmp_path, pack):
    single = extract(pack(tmp_path / "a", "top/x", "top/sub/y"), tmp_path / "single")
    assert sorted(p.name for p in single.rglob("*")) == ["sub", "x", "y"]
    several = extract(pack(tmp_path / "b", "x", "top/y"), tmp_path / "several")
    assert (several / "top" / "y").read_text() == "text"
    assert visible(tmp_path) == ["a", "b", "several", "single"]
    assert extract(tmp_path / "a", several) == several
    assert (several / "x").exists()


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("member", ["../evil", "a/../../evil", "/evil", "..\\evil", "C:\\evil"])
def test_members_outside_are_refused(tmp_path, pack, member):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(MatineeError, match="outside its folder"):
        extract(pack(folder / "archive", "fine", member), folder / "target")
    assert visible(folder) == ["archive"]
    assert visible(tmp_path) == ["folder"]


def zip_bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a", "w", force_zip64=True) as file,
    ):
        for _ in range(8):
            file.write(bytes(1 << 20))


def tar_bomb(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("a")
        info.size = 1 << 40  # as a sparse file would say
        archive.addfile(info)


def many_members(path: Path) -> None:
    tarred(path, *(f"a/{number}" for number in range(1000)))


@pytest.mark.parametrize("pack", [zip_bomb, tar_bomb, many_members])
def test_a_bomb_is_not_unpacked(tmp_path, pack, monkeypatch):
    monkeypatch.setattr(fetch, "most_unpacked", lambda size: (1 << 20) + 100 * size)
    pack(tmp_path / "archive")
    with pytest.raises(MatineeError, match="would unpack to much more"):
        extract(tmp_path / "archive", tmp_path / "target")
    assert visible(tmp_path) == ["archive"]


@pytest.mark.parametrize("size", [0, 10, 150])
def test_a_damaged_archive(tmp_path, size):
    archive = zipped(tmp_path / "archive", "top/x", "top/y")
    archive.write_bytes(archive.read_bytes()[:size])
    with pytest.raises(MatineeError, match="cannot be unpacked"):
        extract(archive, tmp_path / "target")
    assert visible(tmp_path) == ["archive"]
