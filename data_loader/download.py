"""Fetching a data set: a download that resumes, and SPRSound in particular."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from data_loader.unpack import ArchiveError, unpack
from logger.progress import progress_bar
from utils.errors import UserError

# The archive of a branch is packed anew when it is asked for: neither its size nor its checksum is known beforehand.
SPRSOUND_URL = "https://github.com/SJTU-YONGFU-RESEARCH-GRP/SPRSound/archive/refs/heads/main.zip"
TIMEOUT_S = 30.0
_BLOCK = 1 << 18
_AGAIN = "run the same command again: it goes on where it stopped"


def download_sprsound(
    data_dir: Path,
    url: str = SPRSOUND_URL,
    sha256: str | None = None,
    size: int | None = None,
    progress: bool = True,
) -> None:
    """Fetch an archive of SPRSound and unpack it into `data_dir`.

    An interrupted download leaves a hidden file there and goes on from it the next time; the archive is removed once
    it is unpacked, or found to be unusable.

    Args:
        data_dir: made if it is not there; must hold nothing yet, hidden files apart.
        url, sha256, size: see `download`.

    Raises:
        UserError: there is something in `data_dir`, or the archive cannot be fetched or unpacked.
    """
    if data_dir.exists() and not data_dir.is_dir():
        raise UserError(data_dir, "is a file, not a folder", "choose another --data-dir")
    if data_dir.is_dir() and any(not path.name.startswith(".") for path in data_dir.iterdir()):
        raise UserError(data_dir, "is not empty, and a download overwrites nothing", "choose another --data-dir")
    # Named by its address, so that another --url never goes on with, or unpacks, what an earlier one left.
    name = f".download-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    archive = download(url, data_dir / name, sha256, size, progress)
    try:
        unpack(archive, data_dir)
    except ArchiveError:
        archive.unlink()
        raise
    archive.unlink()


def download(
    url: str,
    dest: Path,
    sha256: str | None = None,
    size: int | None = None,
    progress: bool = True,
    attempts: int = 3,
) -> Path:
    """Fetch a file over HTTP or HTTPS.

    The data goes to ``<dest>.part``, which is renamed when it is whole and verified. A broken download is resumed, at
    once and in a later call alike, where the server can do it (RFC 9110, range requests) and the file is still the
    same one, by its ETag or date or because `sha256` is given; otherwise it starts again. A `dest` that is there
    already is verified and kept.

    Args:
        url: the address, http or https.
        dest: the file; missing folders are made.
        sha256: the checksum in hexadecimal digits, verified where given.
        size: bytes, verified where given.
        progress: show a progress bar.
        attempts: after how many connections in a row that bring nothing new to give up.

    Returns:
        `dest`.

    Raises:
        UserError: the address cannot be reached or refuses, the connection keeps breaking, the file cannot be
            written, or its size or checksum is wrong (it is removed then).
    """
    if not re.fullmatch(r"https?://[!-~]+", url, re.IGNORECASE):
        raise UserError(url, "is not an http or https address")
    if dest.exists():
        _verify(dest, dest, sha256, size, f"remove {dest}, it is another file than the expected one")
        return dest
    part = _Part(dest, url, anyway=sha256 is not None)
    failures, most = 0, part.size()
    while True:
        try:
            _fetch(url, part, size, progress)
            break
        except (http.client.HTTPException, OSError) as error:
            # HTTPError is an OSError too, but an answer: asking again gives the same one.
            if isinstance(error, urllib.error.HTTPError):
                what = f"the server answers {error.code} {error.reason}"
                raise UserError(url, what, "check the address" if error.code < 500 else "try again later") from error
            # A connection that brought something new does not count as a failure.
            failures = 0 if part.size() > most else failures + 1
            most = max(most, part.size())
            if failures >= attempts:
                reason = getattr(error, "reason", None) or error
                if part.size():
                    raise UserError(
                        url, f"the connection broke after {part.size()} bytes: {reason}", _AGAIN
                    ) from error
                raise UserError(url, f"cannot be reached: {reason}", "check the address and the network") from error
    try:
        _verify(part.path, url, sha256, size, "the file was removed; try again, or check the expected value")
    except UserError:
        part.discard()
        raise
    part.disk(lambda: part.path.replace(dest))
    part.note.unlink(missing_ok=True)
    return dest


class _Part:
    """The unfinished file, and beside it a note on which file of which address it is the beginning of.

    Everything that touches the disk goes through `disk`, so that a full disk is not taken for a broken connection.
    """

    def __init__(self, dest: Path, url: str, anyway: bool) -> None:
        self.path = dest.with_name(dest.name + ".part")
        self.note = dest.with_name(dest.name + ".part.json")
        self.url = url
        self.anyway = anyway
        self.disk(lambda: dest.parent.mkdir(parents=True, exist_ok=True))

    def disk(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            raise UserError(
                self.path, f"cannot be written: {error.strerror or error}", "mend that and go on"
            ) from error

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def discard(self) -> None:
        self.disk(lambda: (self.path.unlink(missing_ok=True), self.note.unlink(missing_ok=True)))

    def validator(self) -> str | None:
        """What If-Range may hold; "" where nothing is known but a checksum will tell, None where nothing will."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            note = None
        if not isinstance(note, dict) or note.get("url") != self.url:
            note = {}
        return note.get("validator") or ("" if self.anyway else None)

    def begin(self, validator: str | None) -> None:
        """Start from the first byte, of the file with this ETag or date."""
        self.discard()
        self.disk(lambda: self.note.write_text(json.dumps({"url": self.url, "validator": validator})))


def _fetch(url: str, part: _Part, size: int | None, progress: bool) -> None:
    """One connection: the rest of the file, or all of it. Raises OSError or HTTPException where it breaks."""
    headers = {"User-Agent": "respiratory-sound-classification"}
    offset, validator = part.size(), part.validator()
    if offset and validator is not None:
        headers["Range"] = f"bytes={offset}-"
        if validator:
            headers["If-Range"] = validator
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416 or "Range" not in headers:
                raise
            # Nothing lies behind our last byte: all is here if the server's file is as long as ours.
            if error.headers.get("Content-Range", "").strip() == f"bytes */{offset}":
                return
        part.discard()
        _fetch(url, part, size, progress)
        return
    with response:
        total = _total(response, offset)
        if response.status != 206 or total is None:
            if response.status == 206:
                part.discard()
                raise ConnectionError("the server sends another part of the file than was asked for")
            offset = 0
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            part.begin(_validator(response))
        if size is not None and total is not None and total != size:
            part.discard()
            raise UserError(url, f"has {total} bytes, not the expected {size}", "check the address")
        _copy(response, part, offset, total, progress)


def _copy(response: http.client.HTTPResponse, part: _Part, offset: int, total: int | None, progress: bool) -> None:
    done = offset
    bar = progress_bar(
        total=total,
        initial=offset,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        desc="download",
        disable=not progress,
    )
    try:
        file = part.path.open("ab")
    except OSError as error:
        raise UserError(part.path, f"cannot be written: {error.strerror}", "choose another folder") from error
    with bar, file:
        while block := response.read(_BLOCK):
            part.disk(lambda block=block: (file.write(block), file.flush()))
            done += len(block)
            bar.update(len(block))
    if total is not None and done != total:
        raise ConnectionError(f"{done} of {total} bytes came")


def _total(response: http.client.HTTPResponse, offset: int) -> int | None:
    """The length of the whole file, by a 206 answer that begins at `offset`; None for any other answer."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", "").strip())
    return int(match[2]) if response.status == 206 and match and int(match[1]) == offset else None


def _validator(response: http.client.HTTPResponse) -> str | None:
    """A strong ETag, or else the date: a weak ETag must not stand in If-Range (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _verify(path: Path, subject: str | Path, sha256: str | None, size: int | None, hint: str) -> None:
    if size is not None and path.stat().st_size != size:
        raise UserError(subject, f"has {path.stat().st_size} bytes, not the expected {size}", hint)
    if sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256.lower():
            raise UserError(subject, f"has the SHA-256 checksum {found}, not the expected {sha256.lower()}", hint)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirection to another protocol, nor from https down to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        schemes = {"http": ("http", "https"), "https": ("https",)}[urlsplit(req.full_url).scheme]
        if urlsplit(newurl).scheme not in schemes:
            raise UserError(req.full_url, f"is redirected to the less safe address {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Redirects)
