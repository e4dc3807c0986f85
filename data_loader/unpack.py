"""Unpacking an archive from the network without trusting it."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from utils.errors import UserError

_BLOCK = 1 << 18
_LONGEST_HEADER = 1 << 20
# LZMA takes as much memory as a member asks for before it unpacks a byte; `xz -9` asks for 64 MB.
_LARGEST_DICTIONARY = 1 << 28
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # zipfile's for what it cannot decode
    ValueError,
    MemoryError,  # a dictionary of gigabytes, which the header of a tar.xz may ask for
    IndexError,  # zipfile's for a member without a name
)
# A member of an archive: its name, and how to open it; None for a folder.
_Member = tuple[str, Callable[[], IO[bytes]] | None]


class ArchiveError(UserError):
    """The archive itself is unusable, whatever the folder and the disk."""


def unpack(archive: Path, dest: Path, max_bytes: int = 32 * 2**30, max_files: int = 500_000) -> None:
    """Unpack a ``.zip``, ``.tar``, ``.tar.gz`` (``.bz2``, ``.xz``) archive into `dest`.

    The kind is told by the content, not the name. If all lies in one folder, as in GitHub's archives
    (``SPRSound-main/``), that folder is left out. All is unpacked aside, within `dest`, and moved into place when it
    is complete; where anything fails, `dest` is as it was.

    Only files and folders are unpacked, with the permissions of new files. This is stricter than tarfile's "data"
    filter: a link of either kind has no place in a data set, wherever it points.

    Args:
        dest: made if it is not there.
        max_bytes: bound on the unpacked size; bytes are counted as they are written, whatever the archive declares.
        max_files: bound on the number of files and folders.

    Raises:
        ArchiveError: it is not an archive, is damaged, encrypted or empty, has a member that would land outside the
            folder or is neither a file nor a folder, or exceeds a bound.
        UserError: `dest` has an entry of the same name, or cannot be written.
    """
    made = not dest.exists()
    aside = dest / ".unpack-part" / "content"
    try:
        shutil.rmtree(aside.parent, ignore_errors=True)
        aside.mkdir(parents=True)
        _extract(archive, aside, max_bytes, max_files)
        entries = list(aside.iterdir())
        if len(entries) == 1 and entries[0].is_dir():
            entries = list(entries[0].iterdir())
        if not entries:
            raise ArchiveError(archive, "is empty")
        _move(archive, sorted(entries), dest)
    except OSError as error:
        raise UserError(
            archive, f"cannot be unpacked into {dest}: {error}", "check the folder and the disk"
        ) from error
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)
        if made and dest.is_dir() and not any(dest.iterdir()):
            dest.rmdir()


def _extract(archive: Path, folder: Path, max_bytes: int, max_files: int) -> None:
    left = max_bytes
    hint = "fetch it again, or from another place"
    try:
        for count, (name, open_member) in enumerate(_members(archive), start=1):
            if count > max_files:
                raise ArchiveError(archive, f"holds more than {max_files} files", hint)
            target = folder.joinpath(*_safe_parts(archive, name))
            if open_member is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as source, target.open("xb") as file:
                while block := source.read(_BLOCK):
                    left -= len(block)
                    if left < 0:
                        raise ArchiveError(archive, f"unpacks to more than {max_bytes} bytes", hint)
                    file.write(block)
    except _BROKEN as error:
        what = str(error) or type(error).__name__
        raise ArchiveError(archive, f"is damaged: {what}", "remove it and fetch it again") from error


def _members(archive: Path) -> Iterator[_Member]:
    with archive.open("rb") as file:
        is_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    return _zip_members(archive) if is_zip else _tar_members(archive)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if info.flag_bits & 1:
                raise ArchiveError(archive, f"is encrypted: {info.filename!r}")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveError(archive, f"{info.filename!r} is neither a file nor a folder")
            if info.compress_type == zipfile.ZIP_LZMA and (size := _dictionary(archive, info)) > _LARGEST_DICTIONARY:
                raise ArchiveError(archive, f"asks for {size} bytes of memory for {info.filename!r}")
            yield info.filename, None if info.is_dir() else lambda info=info: file.open(info)


def _dictionary(archive: Path, info: zipfile.ZipInfo) -> int:
    """Bytes of the dictionary that a member compressed by LZMA asks for (the format's APPNOTE.TXT, 4.3.7, 5.8.8)."""
    with archive.open("rb") as file:
        file.seek(info.header_offset + 26)
        name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
        # A version, how long the properties are, and the first of them come before.
        file.seek(name + extra + 2 + 2 + 1, os.SEEK_CUR)
        return int.from_bytes(file.read(4), "little")


class _StrictTarInfo(tarfile.TarInfo):
    """tarfile takes a damaged or missing header for the end of the archive; this class takes it for damage.

    And tarfile reads long names and other additions to a header into memory, whatever their size.
    """

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        if info.type not in tarfile.REGULAR_TYPES and info.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info


def _tar_members(archive: Path) -> Iterator[_Member]:
    try:
        # tarfile.is_tarfile would read the first header without the bound on its size.
        opened = tarfile.open(archive, tarinfo=_StrictTarInfo)  # noqa: SIM115
    except tarfile.TarError as error:
        raise ArchiveError(archive, "is neither a zip nor a tar archive", "check the address it came from") from error
    with opened as file:
        for info in file:
            if not (info.isfile() or info.isdir()):
                raise ArchiveError(archive, f"{info.name!r} is neither a file nor a folder")
            yield info.name, None if info.isdir() else lambda info=info: file.extractfile(info)
        # The checksum of a compressed stream comes last, behind the padding of the tar, and is checked when read.
        file.fileobj.read(1 << 20)


def _safe_parts(archive: Path, name: str) -> tuple[str, ...]:
    """The parts of a member's path, none of which leads out of the folder on any system."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise ArchiveError(archive, f"{name!r} would be written outside its folder", "do not use this archive")
    return path.parts


def _move(archive: Path, entries: list[Path], dest: Path) -> None:
    for entry in entries:
        if (dest / entry.name).exists() or (dest / entry.name).is_symlink():
            raise UserError(dest / entry.name, f"is there already, and {archive.name} holds it too", "remove one")
    moved: list[tuple[Path, Path]] = []
    try:
        for entry in entries:
            entry.rename(dest / entry.name)
            moved.append((entry, dest / entry.name))
    except OSError:
        for entry, target in moved:
            target.rename(entry)
        raise
