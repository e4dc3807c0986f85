"""What the three scripts share: arguments, exit status, one line for an error. Imports nothing heavy."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence

from utils.errors import UserError
from utils.memory import keep_freed_memory

# Of an error: room for two paths, not for what a damaged file holds where a number should be.
_LONGEST_LINE = 1000


class Stopped(Exception):
    """A signal ended the work; what was done is saved. `signum` says which."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signal.Signals(signum).name)


def make_parser(description: str, epilog: str = "") -> argparse.ArgumentParser:
    """A parser with the options that all scripts have."""
    parser = argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="the data folder (default: that of the config or checkpoint, else data/SPRSound/)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """``-d``: which GPUs."""
    parser.add_argument(
        "-d",
        "--device",
        metavar="IDS",
        type=_device_ids,
        help='GPUs to use, as in "0" or "0,1"; "cpu" uses none (default: what there is)',
    )


# A number, or what CUDA_VISIBLE_DEVICES may hold too: the identifier that nvidia-smi -L prints.
_GPU = re.compile(r"\d+|(GPU|MIG)-[\w/-]+", re.ASCII)


def _device_ids(text: str) -> str:
    if text != "cpu" and not all(_GPU.fullmatch(part) for part in text.split(",")):
        raise argparse.ArgumentTypeError(f'{text!r} is neither "cpu" nor a list of GPU numbers such as 0 or 0,1')
    return text


def choose_visible_devices(device: str | None) -> None:
    """Show CUDA only the devices that ``-d`` names. To be called before torch is imported."""
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = "" if device == "cpu" else device


def n_devices(device: str | None) -> int | None:
    """How many GPUs ``-d`` names; None where it is not given."""
    if device is None:
        return None
    return 0 if device == "cpu" else len(device.split(","))


def run_script(
    main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> int:
    """Parse the command line, run, and turn what goes wrong into one line and an exit status.

    Returns:
        0 done, 1 failed (one line says why), 130 after Ctrl-C, 143 after SIGTERM. Wrong usage exits with 2.
    """
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _terminate)
    keep_freed_memory()
    try:
        with _no_signal_is_lost():
            main(args)
    except UserError as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Stopped as stopped:
        return 128 + stopped.signum
    except BrokenPipeError:
        # The reader of our output (head, less) went away.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


@contextlib.contextmanager
def _no_signal_is_lost() -> Iterator[None]:
    """Raise anew what a signal raised in a callback of a weak reference, where Python drops it. Imports have many."""
    before = sys.unraisablehook

    def again(dropped: sys.UnraisableHookArgs) -> None:
        error = dropped.exc_value
        if not isinstance(error, (Stopped, KeyboardInterrupt)):
            before(dropped)
            return
        signum = error.signum if isinstance(error, Stopped) else signal.SIGINT
        # Not here, where it would be dropped too.
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signum))
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """For the imports of a script: no search for garbage, which takes a sixth of PyTorch's import and finds none."""
    gc.disable()
    try:
        yield
    finally:
        # What has been imported stays: later searches leave it out.
        gc.freeze()
        gc.enable()


def one_line(text: str) -> str:
    """Text without line breaks or control characters, which a file name may hold; a very long one without its middle.

    >>> one_line("a\\nb")
    'a b'
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 250]} ... {line[-240:]}"


def _terminate(signum: int, frame: object) -> None:
    raise Stopped(signum)
