#!/usr/bin/env python3
"""Read annotations and audio, write the tables, and compute features."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_loader.feature_flags import declared_parameters
from utils.cli import Stopped, make_parser, one_line, positive, quick_imports, run_script
from utils.errors import UserError

if TYPE_CHECKING:
    from data_loader.tables import Tables

EPILOG = """examples:
  python preprocess.py --method stft                          features of events and recordings
  python preprocess.py --method mel --mel-n-mels 128 --mel-duration 4
  python preprocess.py --method ast_wav2vec --tasks 2 --weights wav2vec2_fairseq_base_ls960.pth
  python preprocess.py --download                             fetch SPRSound first
  python preprocess.py --demo --data-dir data/demo --method stft

The data folder may have any of SPRSound's layouts; audio may be WAV or FLAC. Written are task1.csv (events),
task2.csv (recordings), task2_filtered.csv (without Poor Quality) and, with --method M, the feature store processed_M/.
A store is complete or it is not there; an interrupted run goes on where it stopped."""


def parser() -> ArgumentParser:
    """The command line; the parameters of the feature methods are read off their functions."""
    methods = declared_parameters()
    result = make_parser(__doc__, EPILOG)
    result.add_argument("--method", choices=methods, help="the feature method; none writes the tables alone")
    result.add_argument("--tasks", metavar="1,2", help="1 events, 2 recordings (default: both that the method is for)")
    result.add_argument("--workers", type=positive, metavar="N", help="threads, each on one core (default: all cores)")
    result.add_argument(
        "--shards", type=positive, metavar="N", help="files a task of the store (default: one for some 512 items)"
    )
    result.add_argument("--limit", type=positive, metavar="N", help="only N recordings and their events, for a trial")
    result.add_argument(
        "--force", action="store_true", help="make an existing store anew, with the tasks of --tasks and no others"
    )
    result.add_argument("--skip-bad", action="store_true", help="go on without files that cannot be used")
    result.add_argument(
        "--weights", metavar="FILE", help='weights of wav2vec 2.0: a file, "hub" (default), or "random" for a trial'
    )
    result.add_argument("--compute-on", default="auto", metavar="DEVICE", help="cpu, cuda, or auto (default)")
    source = result.add_argument_group("where the data comes from")
    either = source.add_mutually_exclusive_group()
    either.add_argument("--download", action="store_true", help="fetch SPRSound into the data folder first")
    either.add_argument("--demo", action="store_true", help="make the synthetic data set in the data folder first")
    source.add_argument("--url", help="the archive to download (default: the official repository's)")
    source.add_argument("--sha256", metavar="SUM", help="its checksum, if known")
    for method, parameters in methods.items():
        group = result.add_argument_group(f"parameters of {method}")
        for name, (default, meaning) in parameters.items():
            # One network's weights serve several methods: --weights.
            if name != "weights":
                flag, shown = _flag(f"{method}.{name}"), "null" if default is None else default
                help_text = f"{meaning} (default: {shown})"
                group.add_argument(flag, dest=f"{method}.{name}", metavar="VALUE", help=help_text)
    return result


def main(args: Namespace) -> None:
    """Get the data, write the tables, compute the features."""
    with quick_imports():
        import torch

        from data_loader.features import methods
        from utils.distributed import process_group

    check_flags(args, methods)
    params = feature_params(args, methods[args.method]) if args.method else {}
    tasks = parse_tasks(args.tasks) if args.tasks else [*methods[args.method].tasks] if args.method else [1, 2]
    # One process waits for another as long as that one computes.
    with process_group(torch.device("cpu"), timeout=timedelta(days=7)):
        run(args, Path(args.data_dir or "data/SPRSound/"), tasks, params)


def run(args: Namespace, data_dir: Path, tasks: list[int], params: dict[str, Any]) -> None:
    """The steps; under torchrun, process 0 does alone what cannot be shared, and says what is done."""
    from data_loader.tables import build_tables, summary, write_tables
    from logger.log import setup_logging
    from utils.distributed import first_process_does, rank

    setup_logging(None)
    device = compute_device(args.compute_on)
    first_process_does(lambda: get_data(args, data_dir))
    with only_run_of(args.method, data_dir):
        tables = build_tables(data_dir, progress=rank() == 0)
        first_process_does(lambda: report_bad(tables.bad, data_dir, args.skip_bad))
        if tables.task2.empty:
            what = "no recording is left, there is nothing to go on with"
            raise UserError(data_dir, what, "mend the files named above")
        with one_error_for_a_full_disk(data_dir):
            if rank() == 0:
                print(summary(tables), flush=True)
            if args.method:
                compute(args, data_dir, tables, tasks, params, device)
            else:
                first_process_does(lambda: write_tables(tables, data_dir))


def compute(
    args: Namespace, data_dir: Path, tables: Tables, tasks: list[int], params: dict[str, Any], device: str
) -> None:
    """Write the tables and the feature store, and say what was done."""
    from data_loader.extract import extract, stored_tasks
    from data_loader.features import methods
    from data_loader.tables import write_tables
    from utils.distributed import local_world_size, rank

    workers = args.workers or max(1, (os.cpu_count() or 1) // local_world_size())
    if not args.force:
        # What the store holds already is compared with the data too.
        tasks = sorted({*tasks, *stored_tasks(data_dir / f"processed_{args.method}")})
    try:
        folder, computed = extract(
            data_dir,
            methods[args.method],
            params,
            {task: tables.of(task) for task in tasks},
            tables.digests,
            workers=1 if device != "cpu" else workers,
            device=device,
            limit=args.limit,
            n_shards=args.shards,
            force=args.force,
            progress=rank() == 0,
            # Not before: with new tables, a store that is refused would still be used.
            when_checked=lambda: write_tables(tables, data_dir),
        )
    except UserError as error:
        names = error.subject.split(", ")
        if not params.keys() >= set(names):
            raise
        # Values that only the method itself can judge.
        flags = ", ".join(_flag(f"{args.method}.{name}") for name in names)
        raise UserError(flags, error.what, error.hint) from error
    except (KeyboardInterrupt, Stopped):
        print("stopped: the same command goes on with what is missing", file=sys.stderr)
        raise
    if rank() == 0:
        print(f"{folder}: {computed:,} items computed" if computed else f"{folder}: is complete already")


@contextlib.contextmanager
def only_run_of(method: str | None, data_dir: Path) -> Iterator[None]:
    """A block that one run of a method at a time may be in; the processes of one torchrun are in it together.

    Raises:
        UserError: another run is in it; names the file that it has locked.
    """
    from utils.distributed import first_process_does
    from utils.files import remove_leftovers
    from utils.lock import only_one

    with contextlib.ExitStack() as stack:
        first_process_does(lambda: remove_leftovers(data_dir))
        # Where there is no folder, no data is the error to come.
        if method and data_dir.is_dir():
            lock = data_dir / f"processed_{method}.lock"
            with one_error_for_a_full_disk(data_dir):
                first_process_does(lambda: stack.enter_context(only_one(lock, "wait until it is done, or stop it")))
        yield


@contextlib.contextmanager
def one_error_for_a_full_disk(data_dir: Path) -> Iterator[None]:
    """Turn what the file system refuses into the error that a user sees."""
    try:
        yield
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise UserError(
            error.filename or data_dir, what, "the data folder must be writable, with free space"
        ) from error


def check_flags(args: Namespace, methods: Mapping[str, Any]) -> None:
    """Refuse flags that would have no effect.

    Raises:
        UserError: there is one; names the flag that it needs.
    """
    for name, value in vars(args).items():
        method = name.partition(".")[0]
        if value is not None and "." in name and method != args.method:
            raise UserError(_flag(name), f"is for the method {method}", f"give --method {method}, or leave it out")
    needs = dict.fromkeys(("weights", "limit", "shards", "force"), "method")
    needs |= {"url": "download", "sha256": "download"}
    for name, needed in needs.items():
        if getattr(args, name) and not getattr(args, needed):
            raise UserError(f"--{name}", "has no effect here", f"it goes with --{needed}")


def _flag(name: str) -> str:
    """``"mel.n_mels"`` as ``"--mel-n-mels"``."""
    return "--" + name.replace(".", "-").replace("_", "-")


def compute_device(name: str) -> str:
    """The device that ``--compute-on`` means.

    Raises:
        UserError: there is no such device.
    """
    import torch

    from utils.distributed import local_rank

    if name in ("auto", "cuda") and torch.cuda.is_available():
        # Under torchrun each process takes one.
        return f"cuda:{local_rank() % torch.cuda.device_count()}"
    if name in ("auto", "cpu"):
        return "cpu"
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if not match:
        raise UserError("--compute-on", f"is {name!r}", "choose from auto, cpu, cuda and cuda:N")
    if int(match[1] or 0) >= torch.cuda.device_count():
        raise UserError("--compute-on", f"there is no {name} here", "take cpu, or a torch build for your GPU")
    return name


def parse_tasks(text: str) -> list[int]:
    """``"1,2"`` as numbers."""
    tasks = sorted({part.strip() for part in text.split(",")})
    if not set(tasks) <= {"1", "2"}:
        raise UserError("--tasks", f"is {text!r}", "choose from 1, 2 and 1,2")
    return [int(task) for task in tasks]


def feature_params(args: Namespace, feature: Any) -> dict[str, Any]:
    """All parameters of a method, those of the command line over the defaults."""
    from utils.config import parse_assignments

    prefix = f"{feature.name}."
    given = {k.removeprefix(prefix): v for k, v in vars(args).items() if k.startswith(prefix) and v is not None}
    given = parse_assignments([f"{name}={value}" for name, value in given.items()])
    if args.weights is not None:
        if "weights" not in feature.defaults:
            raise UserError("--weights", f"is not for the method {feature.name}", "leave it out")
        given["weights"] = args.weights
    try:
        return feature.checked(given, feature.name)
    except UserError as error:
        raise UserError(_flag(error.subject), error.what, error.hint) from error


def get_data(args: Namespace, data_dir: Path) -> None:
    """Download the data, or make the synthetic set, where that is asked for."""
    if args.download:
        from data_loader.download import SPRSOUND_URL, download_sprsound

        download_sprsound(data_dir, args.url or SPRSOUND_URL, sha256=args.sha256)
    if args.demo:
        from data_loader.synthetic import write_synthetic

        write_synthetic(data_dir, progress=True)


def report_bad(bad: list[UserError], data_dir: Path, skip: bool) -> None:
    """List all files that cannot be used; stop, or go on without them.

    Raises:
        UserError: there are some, and they are not to be skipped.
    """
    files = "1 file" if len(bad) == 1 else f"{len(bad):,} files"
    for error in bad:
        print(f"bad: {one_line(str(error))}", file=sys.stderr)
    if bad and not skip:
        raise UserError(data_dir, f"{files} cannot be used, see above", "mend them, or --skip-bad leaves them out")
    if bad:
        print(f"left out: {files}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_script(main, parser()))
