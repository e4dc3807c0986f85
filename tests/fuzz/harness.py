"""What the fuzz tests share: damage, and the bounds within which an answer has to come.

An answer is a result, or a `UserError` that names what is wrong in one short line. Everything else fails the test: any
other exception, a warning, a hang, memory for sizes that a header merely claims.

The examples are drawn from a fixed seed without a database: every run is the same. A larger run::

    FUZZ=10 FUZZ_SEED=7 OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/fuzz

draws ten times as many examples, from another seed; what fails is shown shrunk, with the seed to repeat it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from utils.cli import one_line
from utils.errors import UserError

TIMES = int(os.environ.get("FUZZ", "1"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
# Generous for a busy machine: a hang is minutes, an answer milliseconds.
SECONDS = 20
# Above what the process has: room for a thread pool's stacks, none for a claim of gigabytes.
MEMORY = 1 << 30
LONGEST_LINE = 1000
MOST_WARNINGS = 3


class Hang(BaseException):
    """No answer came. No `except Exception` may take it for one."""


# How many examples each test tried and how many of them were refused, for the summary.
TRIED: dict[str, list[int]] = {}


def fuzz(name: str, examples: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], bool]) -> None:
    """Run `check` on examples of a strategy; it says whether the example was refused.

    Args:
        name: of the kind of input, for the summary.
        examples: how many, at `FUZZ` 1. Fewer is a failure: the strategy is too poor.
    """
    tried = TRIED.setdefault(name, [0, 0])
    before = tried[0]

    @seed(SEED)
    @settings(
        max_examples=examples * TIMES,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(example: Any) -> None:
        tried[0] += 1
        tried[1] += bool(check(example))

    run()
    assert tried[0] - before >= examples, f"only {tried[0] - before} examples of {name}"


def answer(action: Callable[[], Any], *names: object) -> Any:
    """The result of an action, or its `UserError`; whatever else it does fails.

    Args:
        names: what an error may name (a file, a config key); one of them has to be in its line. None given: any.
    """
    with bounded(), warnings.catch_warnings(record=True) as warned, _log() as logged:
        warnings.simplefilter("always")
        try:
            result = action()
        except UserError as error:
            result = error
    if isinstance(result, UserError):
        check_error(result, *names)
    assert not warned, [str(warning.message) for warning in warned]
    assert len(logged) <= MOST_WARNINGS, logged
    return result


def check_error(error: UserError, *names: object) -> None:
    """An error has to be one short line with one of the names in it, and not come from an attempt at much memory."""
    line = one_line(str(error))
    assert 0 < len(line) <= LONGEST_LINE, f"{len(line)} characters: {line[:200]}"
    assert error.what.strip()
    assert not names or any(one_line(str(name)) in line for name in names), line
    cause: BaseException | None = error
    while cause is not None:
        assert not isinstance(cause, MemoryError), f"memory ran out: {line}"
        assert "allocate memory" not in str(cause), f"memory ran out: {line}"
        cause = cause.__cause__ or cause.__context__


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """A block that may take `SECONDS` and `MEMORY`, and no more."""

    def hang(signum: int, frame: Any) -> None:
        raise Hang(f"no answer within {SECONDS} s")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    handler = signal.signal(signal.SIGALRM, hang)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, handler)


@contextlib.contextmanager
def _log() -> Iterator[list[str]]:
    """Warnings that the project logs."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    root = logging.getLogger("resp")
    root.addHandler(handler)
    try:
        yield lines
    finally:
        root.removeHandler(handler)


# Damage to bytes

_HTML = b"<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1></body></html>\n"
_PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02")
_ZIP = bytes.fromhex("504b0506") + bytes(18)
_OTHERS = [
    b"",
    b"\0",
    b"\0" * 5000,
    b"hello\n",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    _HTML,
    _PNG,
    _ZIP,
    b"\x1f\x8b\x08\0",
    b"fLaC",
]
_OTHERS += [b"RIFF\xff\xff\xff\xffWAVE", b"[" * 100_000, b'{"a":' * 50_000, b"\x93NUMPY\x01\x00", b"a," * 100_000]
_EXTREME = [
    b"\0",
    b"\xff",
    b"\x80",
    b"\x7f",
    b"\x01",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
]
_EXTREME += [b"\xff" * 8, b"\r\n", b'"', b",", b"\0" * 40, b"\xed\xa0\x80", b"\xe2\x80\xae", b"\xc3("]


class Damaged(bytes):
    """Bytes that say what was done to them, not what they are: a failure shows them."""

    def __new__(cls, content: bytes, said: str) -> Damaged:
        result = super().__new__(cls, content)
        result.said = said
        return result

    def __repr__(self) -> str:
        return f"<{len(self)} bytes: {self.said}>"


@st.composite
def damaged(draw: st.DrawFn, content: bytes, header: int = 0) -> Damaged:
    """Bytes with one to three of: a bit flipped, a piece overwritten, inserted, removed or repeated, the end cut off;
    or something else altogether.

    Args:
        header: half of the damage hits these first bytes.
    """
    if draw(st.integers(0, 19)) == 0:
        other = draw(st.sampled_from(_OTHERS))
        return Damaged(other, f"{other[:40]!r}")
    data = bytearray(content)
    said = []
    for _ in range(draw(st.integers(1, 3))):
        end = min(header, len(data)) if header and draw(st.booleans()) else len(data)
        place = draw(st.integers(0, max(end - 1, 0)))
        kind = draw(st.sampled_from(["flip", "overwrite", "insert", "cut", "remove", "repeat"]))
        what: Any = ""
        if kind == "flip" and data:
            what = draw(st.integers(0, 7))
            data[place] ^= 1 << what
        elif kind in ("overwrite", "insert"):
            what = draw(st.one_of(st.sampled_from(_EXTREME), st.binary(min_size=1, max_size=8)))
            data[place : place + len(what) * (kind == "overwrite")] = what
        elif kind == "cut":
            del data[place:]
        elif kind in ("remove", "repeat"):
            what = draw(st.integers(1, 64))
            data[place : place + what] = data[place : place + what] * 2 * (kind == "repeat")
        said.append(f"{kind} {what!r} at {place}")
    return Damaged(bytes(data), ", ".join(said))


# Damage to values

_ODD_TEXT = [
    "",
    " ",
    "a",
    "Normal\0",
    "\ud800",
    "../x",
    "/etc/passwd",
    "nan",
    "1e999",
    "-1",
    "\u202e",
    "é",
    "x" * 5000,
]
_ODD_TEXT += [
    "__class__",
    "os.system",
    "=1+1",
    "'; drop",
    "%s%n",
    "{0}",
    "${HOME}",
    "a\nb",
    "\x1b[31m",
    "null",
    "true",
]
_ODD_NUMBERS = [0, 1, -1, 2, 3, 255, 65536, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400]
_ODD_NUMBERS += [0.0, -0.0, 0.5, 1.5, 1e-300, 1e300, float("inf"), float("-inf"), float("nan")]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(_ODD_NUMBERS),
    st.integers(-10, 10),
    st.floats(),
    st.sampled_from(_ODD_TEXT),
    st.text(max_size=8),
)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=4),
    st.dictionaries(
        st.one_of(st.sampled_from(["type", "args", "folds", "fold", ""]), st.text(max_size=5)), scalars, max_size=3
    ),
    st.sampled_from([[[[[]]]], {"a": {"b": {"c": {}}}}, [0] * 3000]),
)


@dataclass(frozen=True)
class Edit:
    """One change inside a nested value: at a path, another value in place of the old one, or none."""

    path: tuple
    new: Any = None
    delete: bool = False


def edits(value: Any, others: st.SearchStrategy[Any] = values) -> st.SearchStrategy[list[Edit]]:
    """One or two of: a value replaced by one of another kind, removed, a key added."""
    paths = _paths(value)
    objects = [(), *(path for path in paths if isinstance(_at(value, path), dict))]
    path = st.sampled_from(paths)
    one = st.one_of(
        st.builds(Edit, path, others),
        st.builds(Edit, path, others),
        st.builds(Edit, path, delete=st.just(True)),
        st.builds(Edit, st.builds(lambda at, key: (*at, key), st.sampled_from(objects), st.text(max_size=6)), others),
    )
    return st.lists(one, min_size=1, max_size=2)


def edited(value: Any, changes: Iterable[Edit]) -> Any:
    """A copy with the changes made; one whose place an earlier one took away is left out."""
    value = _copied(value)
    for change in changes:
        with contextlib.suppress(LookupError, TypeError):
            place = _at(value, change.path[:-1])
            if change.delete:
                del place[change.path[-1]]
            else:
                # A copy: a value that two changes put in, one within the other, would hold itself.
                new = change.new
                place[change.path[-1]] = _copied(new) if isinstance(new, (dict, list)) else new
    return value


def _paths(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths of all values inside a nested value, containers included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return [found for key, item in items for found in [(*path, key), *_paths(item, (*path, key))]]


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value


def _at(value: Any, path: tuple) -> Any:
    for key in path:
        value = value[key]
    return value
