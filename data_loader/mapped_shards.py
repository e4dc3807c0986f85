"""Many .npy files as one array in memory, so that a batch from any of them is one gather."""

from __future__ import annotations

import contextlib
import ctypes
import io
import math
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.errors import UserError

# The same on Linux and macOS; Python's mmap does not name it.
MAP_FIXED = 0x10


def npy_header(shape: Sequence[int], dtype: np.dtype) -> bytes:
    """What a .npy file of such an array begins with. Its length does not depend on the first axis."""
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": tuple(shape)})
    return header.getvalue()


def open_npy(path: Path, shape: Sequence[int], dtype: np.dtype, hint: str) -> BinaryIO:
    """Open a .npy file of known content, at the beginning of its data.

    Args:
        hint: what to do about a file that is damaged.

    Raises:
        UserError: it is not there, or holds something else than an array of that shape and dtype.
    """
    header = npy_header(shape, dtype)
    wanted = len(header) + math.prod(shape) * dtype.itemsize
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(path, f"cannot be opened: {error.strerror}", hint) from error
    try:
        if file.read(len(header)) != header:
            raise UserError(path, f"does not hold {dtype} numbers of the shape {tuple(shape)}", hint)
        if (size := os.fstat(file.fileno()).st_size) != wanted:
            raise UserError(path, f"has {size:,} bytes instead of {wanted:,}", hint)
    except (OSError, UserError):
        file.close()
        raise
    return file


def _map_at(reserved: mmap.mmap, offset: int, file: BinaryIO, length: int) -> None:
    """Map a file's first bytes, read-only, over a part of a reserved range; they are unmapped together with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    start = np.frombuffer(reserved, np.uint8).ctypes.data + offset
    address = libc.mmap(start, length, mmap.PROT_READ, mmap.MAP_SHARED | MAP_FIXED, file.fileno(), 0)
    if address != start:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class MappedShards:
    """Read access to the rows of .npy files of equal row shape and dtype.

    One range of addresses is reserved, and each file is mapped into it at its place when it is first wanted. So
    nothing is read before it is wanted, no file stays open (there may be more than the limit of open files), and
    NumPy sees one array ``(shard, row, bytes)``, from which it gathers a batch in one call.

    Args:
        folder: of the files.
        counts: for each file, the number of its rows, at least 1.
        shape: of one row.
        dtype: of the rows.
        hint: what to do about a file that is damaged.

    Raises:
        UserError: there are not so many addresses, or the largest file is not of that size.
    """

    def __init__(self, folder: Path, counts: Mapping[str, int], shape: Sequence[int], dtype: str, hint: str) -> None:
        self._folder, self._hint = folder, hint
        self._names, self._counts = list(counts), list(counts.values())
        self._shape, self._dtype = tuple(shape), np.dtype(dtype)
        n_files, most = len(counts), max(self._counts)
        self._row_bytes = math.prod(self._shape) * self._dtype.itemsize
        self._header_bytes = len(npy_header((most, *self._shape), self._dtype))
        self._refuse_false_claim(most)
        pages = -(-(self._header_bytes + most * self._row_bytes) // mmap.PAGESIZE)
        self._stride = pages * mmap.PAGESIZE
        try:
            # Not counted as memory: it cannot be written, and nobody reads it where no file lies over it.
            self._range = mmap.mmap(
                -1, n_files * self._stride, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ
            )
        except (OSError, OverflowError, ValueError) as error:
            raise UserError(folder, f"cannot be mapped into memory: {error}", "see ulimit -v") from error
        self._rows = np.ndarray(
            (n_files, most, self._row_bytes),
            np.uint8,
            self._range,
            self._header_bytes,
            (self._stride, self._row_bytes, 1),
        )
        self._opened = np.zeros(n_files, bool)
        # Rows that this process has read are likely to be still in memory, unless there are more than it can hold.
        self._read = np.zeros((n_files, most), bool)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._fits = sum(self._counts) * self._row_bytes < memory // 2

    def _refuse_false_claim(self, most: int) -> None:
        """Before so much is reserved: the largest file, if it is there, has to be of about that size.

        Whether it is damaged is for `open` to find, and only where it is wanted.
        """
        path = self._folder / self._names[self._counts.index(most)]
        wanted = self._header_bytes + most * self._row_bytes
        with contextlib.suppress(OSError):
            if (size := path.stat().st_size) < wanted // 2:
                raise UserError(path, f"has {size:,} bytes instead of {wanted:,}", self._hint)

    def open(self, numbers: np.ndarray) -> None:
        """Map the files of these numbers.

        Raises:
            UserError: one is not there, damaged, or not of the shape that it should have.
        """
        for number in np.unique(numbers[~self._opened[numbers]]).tolist():
            # Without folders: a store reads no file but its own.
            path = self._folder / Path(self._names[number]).name
            shape = (self._counts[number], *self._shape)
            with open_npy(path, shape, self._dtype, self._hint) as file:
                length = self._header_bytes + self._counts[number] * self._row_bytes
                try:
                    _map_at(self._range, number * self._stride, file, length)
                except OSError as error:
                    raise UserError(path, f"cannot be mapped into memory: {error.strerror}") from error
            self._opened[number] = True

    def damaged(self, numbers: np.ndarray) -> dict[int, UserError]:
        """Map the files of these numbers; of those that cannot be, what `open` says."""
        errors = {}
        for number in numbers.tolist():
            try:
                self.open(np.array([number]))
            except UserError as error:
                errors[number] = error
        return errors

    def gather(self, shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Copy rows out.

        Args:
            shards: ``(batch,)`` int64, numbers of files.
            rows: ``(batch,)`` int64, rows in them; each must exist.

        Returns:
            ``(batch, *shape)``.

        Raises:
            UserError: see `open`.
        """
        if not self._opened[shards].all():
            self.open(shards)
        known = self._read[shards, rows]
        if not known.all():
            self._announce(shards[~known], rows[~known])
            self._read[shards, rows] = self._fits
        return self._rows[shards, rows].view(self._dtype).reshape(len(rows), *self._shape)

    def marks(self, shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """``(batch, frames)``: of rows ``(channels, bands, frames)`` the first band of the last channel, no more read.

        Raises:
            UserError: see `open`.
        """
        self.open(shards)
        channels, bands, frames = self._shape
        start = (channels - 1) * bands * frames * self._dtype.itemsize
        return self._rows[shards, rows, start : start + frames * self._dtype.itemsize].view(self._dtype)

    def _announce(self, shards: np.ndarray, rows: np.ndarray) -> None:
        """Have the disk fetch rows all at once; page faults would fetch one after the other, and what lies around."""
        starts = shards * self._stride + self._header_bytes + rows * self._row_bytes
        for start in starts.tolist():
            before = start % mmap.PAGESIZE
            self._range.madvise(mmap.MADV_WILLNEED, start - before, before + self._row_bytes)
