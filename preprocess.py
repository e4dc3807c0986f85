#!/usr/bin/env python3
"""Read annotations and audio, write the tables, and compute features."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

from utils.cli import make_parser, one_line, run_script
from utils.errors import UserError

EPILOG = """examples:
  python preprocess.py --method stft                          features of events and recordings
  python preprocess.py --method mel --mel-n-mels 128 --mel-duration 4
  python preprocess.py --method ast_wav2vec --tasks 2 --weights wav2vec2_fairseq_base_ls960.pth
  python preprocess.py --download                             fetch SPRSound first
  python preprocess.py --demo --data-dir data/demo --method stft

The data folder may have any of SPRSound's layouts; audio may be WAV or FLAC. Written are task1.csv (events),
task2.csv (recordings), task2_filtered.csv (without Poor Quality) and, with --method M, the feature store processed_M/.
A store is complete or it is not there; an interrupted run goes on where it stopped."""


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not text.isdigit() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def parser() -> ArgumentParser:
    """The command line; the parameters of the feature methods are read off their functions."""
    from data_loader.features import methods

    result = make_parser(__doc__, EPILOG)
    result.add_argument("--method", choices=sorted(methods), help="the feature method; none writes the tables alone")
    result.add_argument("--tasks", default="1,2", metavar="1,2", help="1 events, 2 recordings (default: both)")
    result.add_argument(
        "--workers", type=positive, default=os.cpu_count(), metavar="N", help="processes (default: cores)"
    )
    result.add_argument("--limit", type=positive, metavar="N", help="only N recordings and their events, for a trial")
    result.add_argument("--force", action="store_true", help="make an existing store anew")
    result.add_argument("--skip-bad", action="store_true", help="go on without files that cannot be used")
    result.add_argument(
        "--weights", metavar="FILE", help='weights of wav2vec 2.0: a file, "hub" (default), or "random" for a trial'
    )
    result.add_argument("--compute-on", default="auto", metavar="DEVICE", help="cpu, cuda, or auto (default)")
    source = result.add_argument_group("where the data comes from")
    source.add_argument("--download", action="store_true", help="fetch SPRSound into the data folder first")
    source.add_argument("--url", help="the archive to download (default: the official repository's)")
    source.add_argument("--sha256", help="its checksum, if known")
    source.add_argument("--demo", action="store_true", help="make the synthetic data set in the data folder first")
    for feature in methods.values():
        group = result.add_argument_group(f"parameters of {feature.name}") if _flags(feature) else None
        for name, default in _flags(feature).items():
            flag = f"--{feature.name}-{name}".replace("_", "-")
            group.add_argument(flag, dest=f"{feature.name}.{name}", metavar="VALUE", help=f"(default: {default})")
    return result


def _flags(feature: Any) -> dict[str, Any]:
    return {name: default for name, default in feature.defaults.items() if name != "weights"}


def main(args: Namespace) -> None:
    """Get the data, write the tables, compute the features."""
    import torch

    from data_loader.extract import extract
    from data_loader.features import methods
    from data_loader.tables import build_tables, summary, write_tables
    from logger.log import setup_logging

    setup_logging(None)
    data_dir = Path(args.data_dir or "data/SPRSound/")
    tasks = parse_tasks(args.tasks)
    params = feature_params(args, methods[args.method]) if args.method else {}
    get_data(args, data_dir)

    tables = build_tables(data_dir, progress=True)
    report_bad(tables.bad, data_dir, args.skip_bad)
    write_tables(tables, data_dir)
    print(summary(tables))
    if not args.method:
        return
    device = args.compute_on
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    folder, computed = extract(
        data_dir,
        methods[args.method],
        params,
        {task: tables.of(task) for task in tasks},
        tables.digests,
        workers=1 if device != "cpu" else args.workers,
        device=device,
        limit=args.limit,
        force=args.force,
        progress=True,
    )
    print(f"{folder}: {computed:,} items computed" if computed else f"{folder}: is complete already")


def parse_tasks(text: str) -> list[int]:
    """``"1,2"`` as numbers."""
    tasks = sorted(set(text.split(",")))
    if not tasks or not set(tasks) <= {"1", "2"}:
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
    return feature.checked(given, f"--{feature.name}")


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
    for error in bad:
        print(f"bad: {one_line(str(error))}", file=sys.stderr)
    if bad and not skip:
        raise UserError(
            data_dir, f"{len(bad)} files cannot be used, see above", "mend them, or --skip-bad leaves them out"
        )
    if bad:
        print(f"{len(bad)} files are left out", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_script(main, parser()))
