from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from data_loader import download as download_module
from data_loader.download import download, download_sprsound
from utils.errors import UserError

CONTENT = np.random.default_rng(0).bytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A web server with one file, whose manners the tests choose.

    Attributes:
        breaks: after how many bytes to cut the next connections, one after another.
        refuse: the status of all answers, once the breaks are used up.
        requests: the Range header of each request, None where it had none.
    """

    def __init__(self) -> None:
        self.content, self.etag, self.last_modified = CONTENT, '"one"', None
        self.ranges, self.lengths, self.breaks, self.refuse, self.redirect = True, True, [], None, None
        self.hang = threading.Event()
        self.requests: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *args) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request, client_address) -> None:
                """A client that hangs up is part of the tests."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/set.zip"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.requests.append(wanted)
        if self.refuse == "hang":
            self.hang.wait(5)
            return
        if self.redirect:
            request.send_response(302)
            request.send_header("Location", self.redirect)
            request.end_headers()
            return
        if self.refuse and not self.breaks:
            request.send_error(self.refuse)
            return
        first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        if_range = request.headers.get("If-Range")
        if if_range is not None and if_range not in (self.etag, self.last_modified):
            first = 0
        if first >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.end_headers()
            return
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(self.content) - 1}/{len(self.content)}")
        for header, value in (("ETag", self.etag), ("Last-Modified", self.last_modified)):
            if value:
                request.send_header(header, value)
        if self.lengths:
            request.send_header("Content-Length", str(len(self.content) - first))
        request.end_headers()
        last = first + self.breaks.pop(0) if self.breaks else len(self.content)
        request.wfile.write(self.content[first:last])

    def stop(self) -> None:
        self.hang.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop()


def test_the_file_arrives_and_nothing_else_is_left(server, tmp_path):
    dest = tmp_path / "new" / "set.zip"
    assert download(server.url, dest, SHA256, len(CONTENT), progress=False) == dest
    assert dest.read_bytes() == CONTENT
    assert list(dest.parent.iterdir()) == [dest]


def test_a_server_that_tells_no_length_will_do(server, tmp_path):
    server.lengths = False
    assert download(server.url, tmp_path / "set", SHA256, progress=False).read_bytes() == CONTENT


def test_a_broken_connection_is_resumed_at_once(server, tmp_path):
    server.breaks = [400_000, 300_000]
    assert download(server.url, tmp_path / "set", progress=False).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=400000-", "bytes=700000-"]


def test_a_later_call_goes_on_where_the_download_stopped(server, tmp_path):
    server.breaks, server.refuse = [400_000], 503
    with pytest.raises(UserError, match="503"):
        download(server.url, tmp_path / "set", progress=False)
    assert not (tmp_path / "set").exists()
    server.refuse = None
    assert download(server.url, tmp_path / "set", progress=False).read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=400000-"


def test_the_date_serves_where_there_is_no_strong_etag(server, tmp_path):
    server.etag, server.last_modified, server.breaks = 'W/"weak"', "Sat, 01 Jan 2022 00:00:00 GMT", [400_000]
    assert download(server.url, tmp_path / "set", progress=False).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=400000-"]


def test_without_etag_and_date_it_resumes_only_where_a_checksum_will_tell(server, tmp_path):
    server.etag, server.breaks = None, [400_000]
    assert download(server.url, tmp_path / "a", progress=False).read_bytes() == CONTENT
    assert server.requests == [None, None]
    server.breaks = [400_000]
    assert download(server.url, tmp_path / "b", SHA256, progress=False).read_bytes() == CONTENT
    assert server.requests[2:] == [None, "bytes=400000-"]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges, server.breaks = False, [400_000]
    assert download(server.url, tmp_path / "set", progress=False).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=400000-"]


def test_a_file_that_changed_meanwhile_is_not_joined_to_the_old_one(server, tmp_path):
    server.breaks, server.refuse = [400_000], 503
    with pytest.raises(UserError):
        download(server.url, tmp_path / "set", progress=False)
    server.refuse, server.etag, server.content = None, '"two"', CONTENT[::-1]
    assert download(server.url, tmp_path / "set", progress=False).read_bytes() == CONTENT[::-1]


def test_the_rest_is_not_fetched_from_another_address(server, tmp_path):
    server.breaks, server.refuse = [400_000], 503
    with pytest.raises(UserError):
        download(server.url, tmp_path / "set", progress=False)
    server.refuse = None
    download(server.url + "?mirror", tmp_path / "set", progress=False)
    assert server.requests[-1] is None


def test_a_part_that_is_complete_only_needs_its_name(server, tmp_path):
    (tmp_path / "set.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "set", SHA256, progress=False).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "set.part").write_bytes(CONTENT + b"more")
    assert download(server.url, tmp_path / "set", SHA256, progress=False).read_bytes() == CONTENT


def test_it_gives_up_when_no_connection_brings_anything_new(server, tmp_path):
    server.breaks = [400_000, 0, 0, 0, 0]
    with pytest.raises(UserError, match=r"broke after 400000 bytes.*goes on where it stopped"):
        download(server.url, tmp_path / "set", progress=False)
    assert len(server.requests) == 4


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size": 999}])
def test_a_wrong_checksum_or_size_removes_the_file(server, tmp_path, wrong):
    with pytest.raises(UserError, match="not the expected"):
        download(server.url, tmp_path / "set", progress=False, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_size_is_noticed_where_the_server_tells_no_length(server, tmp_path):
    server.lengths = False
    with pytest.raises(UserError, match="1000000 bytes, not the expected 999"):
        download(server.url, tmp_path / "set", size=999, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_verified_and_kept(server, tmp_path):
    (tmp_path / "set").write_bytes(CONTENT)
    download(server.url, tmp_path / "set", SHA256, progress=False)
    assert server.requests == []
    with pytest.raises(UserError, match="checksum"):
        download(server.url, tmp_path / "set", "0" * 64, progress=False)
    assert (tmp_path / "set").read_bytes() == CONTENT


def test_a_missing_page_is_asked_for_once(server, tmp_path):
    server.refuse = 404
    with pytest.raises(UserError, match="404 Not Found"):
        download(server.url, tmp_path / "set", progress=False)
    assert len(server.requests) == 1


def test_a_server_that_says_nothing_times_out(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "TIMEOUT_S", 0.1)
    server.refuse = "hang"
    with pytest.raises(UserError, match="timed out"):
        download(server.url, tmp_path / "set", progress=False, attempts=1)


def test_no_server_there_is_one_clear_line(server, tmp_path):
    server.stop()
    with pytest.raises(UserError, match=r"cannot be reached: .*refused"):
        download(server.url, tmp_path / "set", progress=False)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a.b/c", "set.zip", "http://", "https://a b", ""])
def test_other_addresses_than_http_are_refused(url, tmp_path):
    with pytest.raises(UserError, match="not an http or https address"):
        download(url, tmp_path / "set", progress=False)


def test_no_redirection_to_another_protocol(server, tmp_path):
    server.redirect = "ftp://127.0.0.1/set.zip"
    with pytest.raises(UserError, match="less safe"):
        download(server.url, tmp_path / "set", progress=False)


def test_a_folder_that_cannot_be_written_to_is_not_taken_for_a_broken_connection(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        download(server.url, tmp_path / "file" / "set", progress=False)
    (tmp_path / "set.part").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        download(server.url, tmp_path / "set", progress=False)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def test_sprsound_is_fetched_and_unpacked_and_the_archive_removed(server, tmp_path):
    server.content = zipped({"SPRSound-main/BioCAS2022/train2022_wav/a.wav": b"RIFF", "SPRSound-main/README.md": b"x"})
    server.breaks = [100]
    download_sprsound(tmp_path / "data", server.url, progress=False)
    files = {path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*")}
    assert files == {"BioCAS2022", "BioCAS2022/train2022_wav", "BioCAS2022/train2022_wav/a.wav", "README.md"}


def test_sprsound_is_not_written_over_other_data(server, tmp_path):
    (tmp_path / "BioCAS2022").mkdir()
    with pytest.raises(UserError, match="not empty"):
        download_sprsound(tmp_path, server.url, progress=False)
    assert server.requests == []


def test_an_answer_that_is_no_archive_is_not_kept_for_the_next_time(server, tmp_path):
    server.content = b"<html>log in to the network</html>"
    with pytest.raises(UserError, match="neither a zip nor a tar"):
        download_sprsound(tmp_path / "data", server.url, progress=False)
    server.content = zipped({"top/wav/a.wav": b"RIFF"})
    download_sprsound(tmp_path / "data", server.url, progress=False)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["wav"]
