"""The one error a user is meant to see.

Whatever is wrong with what the user gave us (a file, a config key, a flag) is raised as a `UserError`. The scripts
turn it into one line, ``error: <subject>: <what> (<what to do>)``, and exit status 1. Anything else is a bug and
keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """Something that the user can mend.

    Args:
        subject: the file, the config key or the flag that is wrong.
        what: what is wrong with it, as a clause without a full stop.
        hint: what to do about it, as an imperative clause; left out where nothing sensible can be said.
    """

    def __init__(self, subject: str | Path, what: str, hint: str = "") -> None:
        self.subject = str(subject)
        self.what = what
        self.hint = hint
        super().__init__(f"{self.subject}: {what}" + (f" ({hint})" if hint else ""))

    def __reduce__(self) -> tuple:
        # Worker processes send their errors home pickled; the default would rebuild from the joined message.
        return type(self), (self.subject, self.what, self.hint)


def nearest(name: str, choices: Iterable[str]) -> str:
    """A hint that names the choice nearest to a misspelt name, or all choices where none is near.

    >>> nearest("LigthCNN", ["LightCNN", "ResNet18"])
    'did you mean LightCNN?'
    >>> nearest("VGG", ["ResNet18", "LightCNN"])
    'choose from LightCNN, ResNet18'
    """
    choices = sorted(choices)
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.7)
    if close:
        return f"did you mean {by_lower[close[0]]}?"
    return f"choose from {', '.join(choices)}" if choices else "there is nothing to choose from"
