"""JSON from outside: read strictly, so that what is taken is what is meant, and nothing later trips over it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

_MOST_VALUES = 1_000_000
_DEEPEST = 50


def read_json(path: Path) -> Any:
    """Read a UTF-8 JSON file, with or without a byte order mark, as `parse_json` does.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not such JSON.
    """
    if path.exists() and not path.is_file():
        # A pipe or a device might never end.
        raise ValueError("it is no file")
    return parse_json(path.read_text(encoding="utf-8-sig"))


def parse_json(text: str) -> Any:
    """Parse JSON, without what other readers of it (RFC 8259) do not take, or take in another way than Python.

    Raises:
        ValueError: it is no JSON, holds a key twice, or `check_plain` refuses it.

    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
        ...
    ValueError: it holds the key a twice
    """
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    check_plain(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"it holds the key {repeated} twice")
    return content


def check_plain(value: Any) -> None:
    """Refuse what JSON has not, or what is too large to be meant: nested deeply, or of very many values.

    Raises:
        ValueError: there is another type, a number that is not finite or beyond 64 bits, half a character, or too much
            of it all.

    >>> check_plain({"a": [1, float("inf")]})
    Traceback (most recent call last):
        ...
    ValueError: it holds inf, which is no number in JSON
    """
    # Not recursive: the same list may stand in many places, and those in many others.
    left: list[tuple[Any, int]] = [(value, 0)]
    seen = 0
    while left:
        item, depth = left.pop()
        seen += 1
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        if seen + len(left) > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES} values")
        if type(item) is dict:
            left += ((part, depth + 1) for entry in item.items() for part in entry)
            if any(type(key) is not str for key in item):
                raise ValueError("it holds a key that is no text")
        elif type(item) in (list, tuple):
            left += ((part, depth + 1) for part in item)
        elif type(item) is str:
            if not item.isascii():
                # A file's name may hold bytes that are no text; other halves of characters stand for nothing.
                item.encode("utf-8", "surrogateescape")
        elif type(item) is float:
            if not math.isfinite(item):
                raise ValueError(f"it holds {item}, which is no number in JSON")
        elif type(item) is int:
            if not -(2**63) <= item < 2**63:
                raise ValueError(f"it holds a whole number of {item.bit_length()} bits")
        elif item is not None and type(item) is not bool:
            raise ValueError(f"it holds a {type(item).__name__}")
