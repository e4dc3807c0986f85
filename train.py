#!/usr/bin/env python3
"""Train a classifier of respiratory sounds as a config says."""

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

EPILOG = """examples:
  python train.py -c configs/task2_1_ast.json
  python train.py -c configs/task1_1_lightcnn.json --lr 1e-4 --bs 16 --set trainer.epochs=5 seed=3
  python train.py -c configs/task1_1_lightcnn.json --set 'data_loader.args.validation_split={"folds": 5, "fold": 0}'
  python train.py -r saved/models/NAME/RUN/checkpoint-epoch7.pth          go on with a run
  python train.py -c configs/task2_1_ast.json -r auto                     go on with its newest run, or begin one
  python train.py -c configs/task1_1_lightcnn.json --folds 5 --seeds 3    cross-validation, and one ensemble of it all
  python train.py -c configs/small_task1_2.json --folds 5 --teacher saved/models/best_task1_2/RUN    one small network
  torchrun --nproc_per_node=2 train.py -c configs/task2_1_ast.json        two GPUs

A run writes its checkpoints to saved/models/NAME/RUN/ and its TensorBoard log to saved/log/NAME/RUN/; the best
checkpoint of the newest run is saved/model_best.pth. With --folds, the runs of all folds lie below one such folder,
beside the ensemble and the out-of-fold scores (oof/); called again with -r auto or its --run_id, it goes on. Look at
the runs with: tensorboard --logdir saved/log"""


def parser() -> ArgumentParser:
    """The command line."""
    result = make_parser(__doc__, EPILOG)
    result.add_argument("-c", "--config", metavar="FILE", help="the config (configs/*.json)")
    result.add_argument(
        "-r",
        "--resume",
        metavar="CHECKPOINT",
        help="go on from a checkpoint, by default with its config; auto: the newest one of the config's name, or of "
        "the run that --run_id names, if any",
    )
    add_device_option(result)
    result.add_argument("--lr", type=float, help="learning rate (optimizer.args.lr)")
    result.add_argument("--bs", type=positive, help="batch size (data_loader.args.batch_size)")
    result.add_argument(
        "--run_id", "--run-id", metavar="NAME", help="name of the run's folders (default: date and time)"
    )
    result.add_argument(
        "--folds",
        type=positive,
        metavar="K",
        help="train K folds, score each item by what was not trained on it, and write one ensemble checkpoint",
    )
    result.add_argument(
        "--seeds",
        type=positive,
        metavar="N",
        help="with --folds: train each fold N times (default: 1; not with --teacher)",
    )
    result.add_argument(
        "--teacher",
        metavar="FOLDER",
        help="with --folds: learn from this group too, and write one network, trained on all items, in place of all",
    )
    result.add_argument(
        "--reuse",
        metavar="FOLDER",
        help="with --folds: take the runs of this group that are the same, and train the rest",
    )
    result.add_argument(
        "--jobs", type=positive, metavar="N", help="with --folds: N runs at a time (default: one a GPU, or one a core)"
    )
    result.add_argument(
        "--set", nargs="+", action="extend", metavar="KEY=VALUE",
        help="set any key of the config, as in trainer.epochs=5; the value is JSON, or else a string",
    )  # fmt: skip
    return result


def newest_of(args: Namespace) -> Path | None:
    """What ``-r auto`` stands for; None where there is no such checkpoint.

    It is the newest one of the config's name, or of the run that ``--run_id`` names, which then goes on.

    Raises:
        UserError: the run that is named is there, without a whole checkpoint, and with more than a run that was killed
            before its first one leaves.
    """
    from base.run_files import newest_checkpoint, newest_of_run, remove_begun
    from logger.log import get_logger
    from utils.config import ConfigParser

    config = ConfigParser.from_args(Namespace(**{**vars(args), "resume": None}))
    runs = config.save_root / "models" / config["name"]
    if args.run_id is None:
        found, whose = newest_checkpoint(runs), config["name"]
    else:
        run = runs / args.run_id
        found, whose = newest_of_run(run), f"{config['name']}/{args.run_id}"
        if found is None and run.is_dir():
            remove_begun(run, config.save_root / "log" / config["name"] / args.run_id)
    if found is None:
        get_logger(__name__).info("-r auto: there is no checkpoint of %s: a new run begins", whose)
    elif args.run_id is not None:
        # Its folder is there, and is gone on in.
        args.run_id = None
    return found


def main(args: Namespace) -> None:
    """Read the config, build everything, train."""
    if not args.folds and (args.seeds or args.jobs or args.teacher or args.reuse):
        parser().error("--seeds, --jobs, --teacher and --reuse go with --folds")
    if args.folds == 1:
        parser().error("--folds: there are at least 2")
    choose_visible_devices(args.device)
    with quick_imports():
        import torch

        from base.run_files import announce_run
        from logger.log import setup_logging
        from trainer.check import check_config
        from trainer.setup import make_trainer
        from utils.checkpoint import load_checkpoint
        from utils.config import ConfigParser
        from utils.device import choose_device, make_deterministic
        from utils.distributed import process_group, rank

    setup_logging(None)
    if args.folds:
        from trainer.cross_validation import cross_validate

        cross_validate(args)
        return
    if args.resume == "auto":
        args.resume = newest_of(args)
    saved = load_checkpoint(Path(args.resume))["config"] if args.resume else None
    config = ConfigParser.from_args(args, saved)
    check_config(config)
    device = choose_device(config.get("n_gpu") if args.device is None else n_devices(args.device))
    make_deterministic(config.get("trainer.deterministic", False))
    torch.manual_seed(config.seed)
    with process_group(device):
        config.make_run_folders()
        try:
            first = rank() == 0
            setup_logging(config.save_dir if first else None, config.get("trainer.verbosity", 2) if first else 0)
            trainer = make_trainer(config, device)
        except BaseException:
            config.discard_run_folders()
            raise
        if first:
            announce_run(config)
        trainer.finish(trainer.train())


if __name__ == "__main__":
    sys.exit(run_script(main, parser()))
