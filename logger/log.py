"""What a run says: to the console and to its train.log."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path

from utils.errors import UserError

_PROJECT = "resp"
_CONSOLE_LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}


class _Console(logging.Handler):
    """Standard error, above the progress bars that stand there."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        # It may be a file on a full disk. Looked up at each message, since tests and notebooks replace sys.stderr.
        with contextlib.suppress(OSError):
            tqdm.write(self.format(record), file=sys.stderr)


class _File(logging.FileHandler):
    """Appends to a file. What the disk does not take is lost with one warning, and what was there stays."""

    def __init__(self, path: Path) -> None:
        # File names of recordings may hold bytes that are no text.
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._warned = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._warned:
            self._warned = True
            get_logger(__name__).warning(
                "%s: cannot be written: %s (the run goes on without)", self.baseFilename, error.strerror
            )

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


class _ConsoleFormatter(logging.Formatter):
    """The message alone; from a warning upward the level in front of it."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


def get_logger(name: str) -> logging.Logger:
    """The logger of a module; call it as ``get_logger(__name__)``.

    All loggers of the project hang under one, so that `setup_logging` never touches those of other libraries.
    """
    return logging.getLogger(f"{_PROJECT}.{name}")


def setup_logging(run_dir: Path | None, verbosity: int = 2) -> None:
    """Send the project's messages to the console and to ``run_dir/train.log``. For scripts; libraries never call it.

    Called again it replaces what the earlier call set up. The file is appended to, so that a resumed run keeps its
    history, and gets every message whatever the verbosity.

    Args:
        run_dir: folder of the run, made if missing; None for the console alone.
        verbosity: what the console shows: 0 warnings, 1 also information, 2 everything.

    Raises:
        UserError: train.log cannot be opened.
    """
    root = logging.getLogger(_PROJECT)
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.setLevel(logging.DEBUG)

    console = _Console(_CONSOLE_LEVELS[min(max(verbosity, 0), 2)])
    console.setFormatter(_ConsoleFormatter("%(message)s"))
    root.addHandler(console)
    if run_dir is not None:
        path = Path(run_dir) / "train.log"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _File(path)
        except OSError as error:
            raise UserError(path, f"cannot be written: {error.strerror}", "take another trainer.save_dir") from error
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(file)
