"""Names that a configuration may use, and what they stand for.

A config names an architecture, a loss or a feature; a `Registry` maps that name to the one thing the project
registered under it, and to nothing else: no attribute look-up, no import path from a config.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from utils.errors import UserError, nearest

T = TypeVar("T")


class Registry(Mapping[str, Any]):
    """A read-only mapping from names to registered objects, filled by the `register` decorator.

    Args:
        kind: what the names stand for, in an error message ("architecture").
        package: a package whose modules register themselves on import. They are imported when the registry is
            first read, so that a new file is found without an edit elsewhere and nothing is imported before.

    >>> shapes = Registry("shape")
    >>> @shapes.register()
    ... def circle(): ...
    >>> list(shapes)
    ['circle']
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        self.kind = kind
        self._package = package
        self._items: dict[str, Any] = {}

    def register(self, name: str | None = None) -> Callable[[T], T]:
        """Decorator: register a class or function under `name`, by default its own.

        Raises:
            UserError: what another module registered has that name.
        """

        def decorate(item: T) -> T:
            key = name or item.__name__
            if key in self._items and self._items[key].__module__ != item.__module__:
                raise self._twice(item.__module__, key)
            self._items[key] = item
            return item

        return decorate

    def add(self, name: str, item: Any) -> None:
        """Register something that exists already, such as a class of torch.optim."""
        self._items[name] = item

    def _load(self) -> dict[str, Any]:
        if self._package:
            package = importlib.import_module(self._package)
            for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
                before = dict(self._items)
                importlib.import_module(f"{self._package}.{module}")
                # A file copied from another one, whose name nobody changed, would take its place unseen.
                if taken := [name for name, item in before.items() if self._items[name] is not item]:
                    raise self._twice(f"{self._package}.{module}", taken[0])
            self._package = None
        return self._items

    def _twice(self, module: str, name: str) -> UserError:
        return UserError(module, f"registers the {self.kind} {name!r}, which there is already", "take another name")

    def lookup(self, name: str, where: str) -> Any:
        """The item of that name.

        Raises:
            UserError: there is none; names `where` (a config key or a flag) and the nearest name.
        """
        items = self._load()
        if not isinstance(name, str) or name not in items:
            raise UserError(where, f"there is no {self.kind} {name!r}", nearest(name, items))
        return items[name]

    def __getitem__(self, name: str) -> Any:
        return self._load()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._load()))

    def __len__(self) -> int:
        return len(self._load())
