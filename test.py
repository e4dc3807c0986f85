#!/usr/bin/env python3
"""Score a checkpoint on a split of its data, or predict any folder of audio files."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from utils.cli import (
    add_device_option,
    choose_visible_devices,
    make_parser,
    n_devices,
    positive,
    quick_imports,
    run_script,
)
from utils.errors import UserError

EPILOG = """examples:
  python test.py -r saved/model_best.pth                                  the test set, or else the validation
  python test.py -r saved/model_best.pth --split inter
  python test.py -r saved/model_best.pth --wav DIR --out predictions.json

The report is printed, and written as metrics.json, predictions.csv and confusion_matrix.png to
<folder of the checkpoint>/<split>/ or to --out-dir. A checkpoint needs no config: it holds its own."""


def parser() -> ArgumentParser:
    """The command line."""
    result = make_parser(__doc__, EPILOG)
    result.add_argument("-r", "--resume", required=True, metavar="CHECKPOINT", help="the checkpoint to test")
    result.add_argument(
        "--split",
        metavar="SPLIT",
        help="train, valid, test (its parts together), inter, intra, held_out, or another split of the tables "
        "(default: test where there is one, else valid)",
    )
    result.add_argument("--out-dir", metavar="DIR", help="where the report goes (default: next to the checkpoint)")
    result.add_argument(
        "--wav", metavar="DIR", help="predict all audio files (WAV, FLAC, OGG, MP3) below DIR; needs no annotations"
    )
    result.add_argument("--out", metavar="FILE", help="where the predictions of --wav go (JSON)")
    result.add_argument(
        "--decide",
        choices=["argmax", "counted", "score"],
        help="the most probable class; the most probable one that the score counts, never Poor Quality; or that which "
        "maximises the expected score (default: what the config of the checkpoint says, else argmax)",
    )
    result.add_argument(
        "--adapt-priors",
        action="store_true",
        help="with --wav: estimate the class proportions of DIR from the predictions, and predict for these "
        "(off by default: it assumes that nothing but the proportions differs from the training)",
    )
    result.add_argument(
        "--bs",
        type=positive,
        metavar="N",
        help="batch size (default: that of the training, with --wav what suits the device)",
    )
    add_device_option(result)
    return result


def main(args: Namespace) -> None:
    """Load the checkpoint; evaluate a split or predict a folder."""
    if bool(args.wav) != bool(args.out):
        parser().error("--wav DIR and --out FILE go together")
    if args.wav and (args.split or args.out_dir):
        parser().error("--split and --out-dir are for a test, --wav and --out for a prediction")
    if args.adapt_priors and not args.wav:
        parser().error("--adapt-priors goes with --wav: a test keeps the proportions of the training")
    choose_visible_devices(args.device)
    with quick_imports():
        from logger.log import setup_logging
        from trainer.trained import load_trained
        from utils.device import choose_device
        from utils.distributed import world_size
        from utils.files import refuse_unwritable

    if world_size() > 1:
        raise UserError("test.py", "several processes were started", "start one, without torchrun")
    setup_logging(None)
    changes = {"data_dir": args.data_dir, "batch_size": args.bs}
    changes = {key: value for key, value in changes.items() if value is not None}
    if args.out:
        refuse_unwritable(Path(args.out), "name another --out")
    elif args.out_dir:
        refuse_unwritable(Path(args.out_dir), "name another --out-dir", is_folder=True)
    trained = load_trained(Path(args.resume), choose_device(n_devices(args.device)), changes)
    if args.wav:
        with quick_imports():
            from trainer.folder_prediction import predict_folder, write_predictions

        predictions = predict_folder(trained, Path(args.wav), args.bs, args.decide, args.adapt_priors)
        write_predictions(predictions, Path(args.out))
        print(f"{len(predictions)} predictions: {args.out}")
        return
    with quick_imports():
        from trainer.evaluation import evaluate

    report = evaluate(trained, args.split, args.decide)
    out_dir = Path(args.out_dir) if args.out_dir else trained.path.parent / report.metrics["split"]
    try:
        report.save(out_dir)
    except OSError as error:
        raise UserError(out_dir, f"cannot be written: {error.strerror}", "name another --out-dir") from error
    print(f"{report.table()}\n\n{out_dir}: metrics.json, predictions.csv, confusion_matrix.png")


if __name__ == "__main__":
    sys.exit(run_script(main, parser()))
