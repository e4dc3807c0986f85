"""Damaged and hostile archives."""

from __future__ import annotations

import io
import shutil
import stat
import tarfile
import warnings
import zipfile

import pytest
from hypothesis import strategies as st

from data_loader.unpack import unpack
from tests.fuzz.harness import answer, damaged, fuzz
from utils.errors import UserError

FILES = {"top/train2022_wav/a.wav": bytes(range(256)) * 8, "top/b.json": b"{}", "top/empty": b""}
MOST_BYTES, MOST_FILES = 100_000, 20


def tree(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def zipped(files, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(out, "w", method) as archive:
        for name, content, mode in files:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type, info.external_attr = name, method, mode << 16
            archive.writestr(info, content)
    return out.getvalue()


def tarred(files, mode="w:gz", form=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=form) as archive:
        for name, content, kind in files:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../../evil"
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def refused(tmp_path):
    """Unpacks bytes; whatever happens, nothing may lie outside the folder, nor half of it in there."""
    folder = tmp_path / "place"
    archive, dest = folder / "archive", folder / "dest"

    def check(content):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        archive.write_bytes(content)
        result = answer(lambda: unpack(archive, dest, max_bytes=MOST_BYTES, max_files=MOST_FILES), archive, dest)
        if isinstance(result, UserError):
            assert tree(tmp_path) == {"place", "place/archive"}
            return True
        assert {name.split("/")[1] for name in tree(tmp_path) - {"place"}} == {"archive", "dest"}
        entries = list(dest.rglob("*"))
        assert all(not path.is_symlink() and (path.is_file() or path.is_dir()) for path in entries)
        assert sum(path.stat().st_size for path in entries if path.is_file()) <= MOST_BYTES
        assert len(entries) <= MOST_FILES * 10
        return False

    return check


REGULAR = [(name, content, stat.S_IFREG | 0o644) for name, content in FILES.items()]
TAR_REGULAR = [(name, content, tarfile.REGTYPE) for name, content in FILES.items()]
MAKERS = {
    "zip": lambda: zipped(REGULAR),
    "stored zip": lambda: zipped(REGULAR, zipfile.ZIP_STORED),
    "lzma zip": lambda: zipped(REGULAR, zipfile.ZIP_LZMA),
    "tar": lambda: tarred(TAR_REGULAR, "w"),
    "gnu tar": lambda: tarred(TAR_REGULAR, "w", tarfile.GNU_FORMAT),
    "tar.gz": lambda: tarred(TAR_REGULAR, "w:gz"),
    "tar.xz": lambda: tarred(TAR_REGULAR, "w:xz"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_damaged_archive_is_unpacked_whole_or_not_at_all(refused, kind):
    content = MAKERS[kind]()
    # The members of a tar lie before its padding.
    fuzz("archive", 30, damaged(content, header=min(len(content), 5000)), refused)


PARTS = ["a", "b", "..", ".", "", "C:", "con", "\\", "..\\..", "~", "\u202e", "x" * 300, "-rf", "$HOME", "a b", "é"]
names = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("/".join)


def test_members_of_any_name_and_kind_stay_in_the_folder(refused):
    kinds = st.sampled_from([stat.S_IFREG] * 4 + [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, 0])
    fuzz(
        "archive",
        100,
        st.lists(st.tuples(names, st.binary(max_size=20), kinds), min_size=1, max_size=5),
        lambda f: refused(zipped(f)),
    )
    kinds = st.sampled_from(
        [tarfile.REGTYPE] * 4 + [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE]
    )
    fuzz(
        "archive",
        100,
        st.lists(st.tuples(names, st.binary(max_size=20), kinds), min_size=1, max_size=5),
        lambda f: refused(tarred(f)),
    )
