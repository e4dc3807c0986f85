from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile

import pytest

from data_loader.unpack import ArchiveError, unpack
from utils.errors import UserError


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def make_tar(path, files, mode="w:gz", **attributes):
    with tarfile.open(path, mode) as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(content))
    return path


def tree(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")} if folder.exists() else None


FILES = {"top/a.txt": b"a", "top/sub/b.txt": b"b" * 1000}


@pytest.mark.parametrize(
    "make",
    [
        lambda path: make_zip(path, FILES),
        lambda path: make_tar(path, FILES, "w"),
        lambda path: make_tar(path, FILES, "w:gz"),
        lambda path: make_tar(path, FILES, "w:xz"),
    ],
)
def test_an_archive_is_unpacked_without_its_single_top_folder(tmp_path, make):
    dest = tmp_path / "dest"
    unpack(make(tmp_path / "archive"), dest)
    assert tree(dest) == {"a.txt", "sub", "sub/b.txt"}
    assert (dest / "sub" / "b.txt").read_bytes() == b"b" * 1000


def test_several_top_folders_stay(tmp_path):
    unpack(make_zip(tmp_path / "a.zip", {"wav/1.wav": b"1", "json/1.json": b"2"}), tmp_path / "dest")
    assert tree(tmp_path / "dest") == {"wav", "wav/1.wav", "json", "json/1.json"}


def test_what_lies_in_the_folder_already_stays(tmp_path):
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest" / "mine.txt").write_text("mine")
    unpack(make_zip(tmp_path / "a.zip", FILES), tmp_path / "dest")
    assert tree(tmp_path / "dest") == {"mine.txt", "a.txt", "sub", "sub/b.txt"}


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "dest" / "sub").mkdir(parents=True)
    with pytest.raises(UserError, match="there already"):
        unpack(make_zip(tmp_path / "a.zip", FILES), tmp_path / "dest")
    assert tree(tmp_path / "dest") == {"sub"}


@pytest.mark.parametrize("name", ["../evil", "top/../../evil", "/evil", "C:/evil", "c:evil", "..\\evil", "\\evil"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_no_member_is_written_outside_the_folder(tmp_path, make, name):
    archive = make(tmp_path / "archive", {"top/good": b"good", name: b"evil"})
    with pytest.raises(ArchiveError, match=r"archive: .*outside"):
        unpack(archive, tmp_path / "dest")
    assert tree(tmp_path) == {"archive"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_tar_with_links_or_devices_is_refused(tmp_path, kind):
    archive = make_tar(tmp_path / "a.tar", {"top/link": b""}, "w", type=kind, linkname="../../../etc/passwd")
    with pytest.raises(ArchiveError, match="neither a file nor a folder"):
        unpack(archive, tmp_path / "dest")
    assert tree(tmp_path) == {"a.tar"}


def test_a_zip_with_a_symbolic_link_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc")
        file.writestr("link/passwd", "evil")
    with pytest.raises(ArchiveError, match="neither a file nor a folder"):
        unpack(tmp_path / "a.zip", tmp_path / "dest")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_bomb_stops_at_the_bound(tmp_path, make):
    archive = make(tmp_path / "archive", {"top/zeros": bytes(20_000_000)})
    assert archive.stat().st_size < 100_000
    with pytest.raises(ArchiveError, match="more than 1000000 bytes"):
        unpack(archive, tmp_path / "dest", max_bytes=1_000_000)
    assert tree(tmp_path) == {"archive"}


def test_the_number_of_files_is_bounded(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {f"top/{number}": b"" for number in range(11)})
    with pytest.raises(ArchiveError, match="more than 10 files"):
        unpack(archive, tmp_path / "dest", max_files=10)


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_archive_leaves_nothing_behind(tmp_path, make, damage):
    archive = make(tmp_path / "archive", {f"top/{n}": bytes(range(256)) * 40 for n in range(5)})
    content = archive.read_bytes()
    half = len(content) // 2
    damaged = {
        "cut": content[:half],
        "flip": content[:half] + bytes(b ^ 0xFF for b in content[half : half + 20]) + content[half + 20 :],
        "empty": b"",
        "text": b"<html>not here</html>",
    }[damage]
    archive.write_bytes(damaged)
    with pytest.raises(ArchiveError, match="archive: "):
        unpack(archive, tmp_path / "dest")
    assert tree(tmp_path) == {"archive"}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_cut_between_two_files_is_damaged_not_shorter(tmp_path, mode):
    content = make_tar(tmp_path / "whole.tar", FILES, "w").read_bytes()[:1024]  # the first file, header and block
    archive = tmp_path / "cut.tar"
    archive.write_bytes(content if mode == "w" else gzip.compress(content))
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(archive, tmp_path / "dest")


def test_a_wrong_checksum_of_a_compressed_tar_is_noticed(tmp_path):
    archive = make_tar(tmp_path / "a.tar.gz", FILES)
    content = bytearray(archive.read_bytes())
    content[-8] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(archive, tmp_path / "dest")


def test_one_name_twice_is_an_error_not_a_silent_choice(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("top/a", "1")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("top/a", "2")
    with pytest.raises(UserError, match=r"a\.zip"):
        unpack(tmp_path / "a.zip", tmp_path / "dest")
    assert tree(tmp_path) == {"a.zip"}


def test_a_member_without_a_name_is_damage(tmp_path):
    info = zipfile.ZipInfo("x")
    info.filename = ""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(info, b"")
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(tmp_path / "a.zip", tmp_path / "dest")


def test_an_archive_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"a\.zip"):
        unpack(tmp_path / "a.zip", tmp_path / "dest")


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
def test_a_header_that_claims_gigabytes_is_not_read_into_memory(tmp_path, kind):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 4 * 2**30
    first = tarfile.TarInfo("first").tobuf()
    for before, what in ((b"", "neither a zip nor a tar"), (first, "damaged: a header of 4294967296 bytes")):
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(before + info.tobuf() + bytes(50_000)))
        with pytest.raises(ArchiveError, match=what):
            unpack(tmp_path / "a.tar.gz", tmp_path / "dest")


def test_a_member_that_asks_for_gigabytes_of_memory_is_refused(tmp_path):
    archive, dest = tmp_path / "a.zip", tmp_path / "dest"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("top/a.txt", b"a" * 1000)
        file.writestr("top/b.txt", b"b" * 1000)
    unpack(archive, dest)
    assert (dest / "b.txt").read_bytes() == b"b" * 1000
    content = archive.read_bytes()
    # The dictionary's size, behind the name, the properties' version and length, and one of them.
    at = content.index(b"top/b.txt") + len(b"top/b.txt") + 5
    archive.write_bytes(content[:at] + b"\xff" * 4 + content[at + 4 :])
    with pytest.raises(ArchiveError, match=r"asks for 4294967295 bytes of memory for 'top/b\.txt'"):
        unpack(archive, tmp_path / "other")
    assert not (tmp_path / "other").exists()
