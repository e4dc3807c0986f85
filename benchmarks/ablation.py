#!/usr/bin/env python3
"""What each part of the best recipes is worth: trained in five folds without it, and compared on the same items.

    python benchmarks/ablation.py                         all rows: many hours, in the background
    python benchmarks/ablation.py --only SLUG [SLUG ...]  these rows, and what they are compared with
    tail -f saved/ablation.log                            follow it
    kill $(cat saved/ablation.pid)                        stop it: what trains saves where it is

What is done is not done again, and an interrupted training goes on: repeat the command. At the end, the tables of all
rows that are done go to saved/ablation.md. Their intervals are over patients; what chance does in training shows in
the row of another seed. Of twenty intervals of 95 %, one is expected to miss. Needs the features that
benchmarks/reproduce.py makes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from steps import SAVED, Step, begin, folder_of, folds, run
from steps import parser as job_parser

from utils.cli import run_script
from utils.config import ConfigParser
from utils.errors import UserError
from utils.files import atomic_write_text
from utils.strict_json import read_json

EVENTS, RECORDINGS = "task1_2_eventnet_resnet", "task2_2_recordingnet_mn04"
# How each recipe is scored, see compare.py.
RULES = {EVENTS: "argmax", RECORDINGS: "counted"}
TABLE = SAVED / "ablation.md"
_AUGMENT, _BALANCE = "data_loader.args.augment", "data_loader.args.balance"


@dataclass(frozen=True)
class Row:
    """One change of a recipe.

    Attributes:
        slug: of its run.
        words: what is changed.
        config: of the recipe, in configs/.
        changes: what ``--set`` gets.
        trains: whether that changes the training; else the recipe's own networks are scored anew.
    """

    slug: str
    words: str
    config: str
    changes: tuple[str, ...] = ()
    trains: bool = True

    @property
    def run_id(self) -> str:
        return f"ablation_{self.slug}"

    @property
    def step(self) -> Step:
        """The command that trains it; the recipe itself is taken from the ensemble, where that is trained."""
        if self.changes:
            reused = () if self.trains else ("--reuse", str(folder_of(self.config, BASES[self.config].run_id)))
            return folds(self.config, self.run_id, *reused, "--set", *self.changes)
        ensemble = folder_of(f"best_{'_'.join(self.config.split('_')[:2])}", "results")
        return folds(self.config, self.run_id, *(("--reuse", str(ensemble)) if ensemble.is_dir() else ()))

    @property
    def scores(self) -> Path:
        """Where its out-of-fold predictions are."""
        return folder_of(self.config, self.run_id) / "oof"


# Another seed draws the same folds, as train.py --seeds does.
_SEED = ("seed=1", "data_loader.args.seed=0")
_NO_MASKS = (f"{_AUGMENT}.time_masks=0", f"{_AUGMENT}.freq_masks=0")
_NO_MOVES = (f"{_AUGMENT}.roll_bands=0", f"{_AUGMENT}.level=0", f"{_AUGMENT}.edge_jitter=0")
ROWS = (
    Row("events_seed", "another seed", EVENTS, _SEED),
    Row("events_alone", "each event by itself", EVENTS, ("recording_context=false",), trains=False),
    Row("events_balance_none", "every item once an epoch", EVENTS, (f"{_BALANCE}=none",)),
    Row("events_balance_weights", "all classes equally often", EVENTS, (f"{_BALANCE}=weights",)),
    Row("events_no_ema", "no moving average of the weights", EVENTS, ("trainer.ema=null",)),
    Row("events_no_label_smoothing", "no label smoothing", EVENTS, ("loss.args.label_smoothing=0",)),
    Row("events_no_masks", "no masks", EVENTS, _NO_MASKS),
    Row("events_no_moves", "no moves of bands, level and edges", EVENTS, _NO_MOVES),
    Row("events_mixup", "mixup of half of the batches", EVENTS, (f"{_AUGMENT}.mixup=0.5",)),
    Row("events_decay_all", "weight decay of biases and norms too", EVENTS, ("optimizer.no_decay_1d=false",)),
    Row("recordings_seed", "another seed", RECORDINGS, _SEED),
    Row("recordings_sqrt_weights", "rare classes less often", RECORDINGS, (f"{_BALANCE}=sqrt_weights",)),
    Row("recordings_no_roll", "not moved in time", RECORDINGS, (f"{_AUGMENT}.roll_time=false",)),
    Row("recordings_no_splice", "no splicing", RECORDINGS, (f"{_AUGMENT}.splice=0",)),
    Row("recordings_no_frames", "no frame supervision", RECORDINGS, ("loss.args.frame_weight=0",)),
    Row("recordings_body_steps", "steps in time as in the body", RECORDINGS, ("arch.args.frames_per_step=null",)),
    Row("recordings_no_masks", "no masks", RECORDINGS, _NO_MASKS),
    Row("recordings_no_ema", "no moving average of the weights", RECORDINGS, ("trainer.ema=null",)),
    Row("recordings_mixup", "mixup of half of the batches", RECORDINGS, (f"{_AUGMENT}.mixup=0.5",)),
    Row("recordings_random_weights", "weights from random numbers", RECORDINGS, ("arch.args.weights=null",)),
)
BASES = {config: Row("base", "the recipe", config) for config in RULES}


def chosen(only: Collection[str] | None) -> list[Row]:
    """The rows to train, each recipe first.

    Args:
        only: slugs of rows; None for all.
    """
    found = []
    for config, base in BASES.items():
        rows = [row for row in ROWS if row.config == config and (only is None or row.slug in only)]
        found += [base, *rows] if rows else []
    return found


def is_of_its_config(row: Row) -> bool:
    """Whether what is done of a row was trained by its config as it is now; else it can be compared with nothing."""
    now = ConfigParser.from_args(argparse.Namespace(config=f"configs/{row.config}.json", set=row.changes))
    try:
        report = read_json(row.scores / "metrics.json")
    except (OSError, ValueError):
        return False
    return isinstance(report, dict) and report.get("config") == {now["name"]: now.to_dict()}


def tables() -> str:
    """The rows that are done, in Markdown, a table for each recipe that is done."""
    # PyTorch would lie in memory for hours.
    from compare import read_run, table

    result = []
    for config, base in BASES.items():
        done = [row for row in (base, *ROWS) if row.config == config and row.step.is_done]
        rows = [row for row in done if is_of_its_config(row)]
        if base in rows:
            runs = [(row.words, read_run(row.scores)) for row in rows]
            result.append(f"`{config}`:\n\n{table(runs, RULES[config])}\n")
        if left := [row.run_id for row in done if row not in rows]:
            result.append(f"`{config}`: not trained by its config as it is now, and left out: {', '.join(left)}\n")
    return "\n".join(result)


def work(only: Collection[str] | None) -> None:
    """Train what is left of the rows, and write the tables.

    Raises:
        UserError: a training failed, or one that is done is of another config.
    """
    rows = chosen(only)
    for row in rows:
        if row.step.is_done and not is_of_its_config(row):
            what = f"was not trained by configs/{row.config}.json as it is now"
            raise UserError(row.scores.parent, what, "move it away, and repeat the command")
    run([row.step for row in rows])
    text = tables()
    atomic_write_text(TABLE, text)
    print(f"{text}\n{TABLE}", flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = job_parser(__doc__)
    slugs = [row.slug for row in ROWS]
    result.epilog = "rows:\n" + "\n".join(f"  {row.slug:<{max(map(len, slugs))}}  {row.words}" for row in ROWS)
    result.add_argument("--only", nargs="+", choices=slugs, metavar="SLUG", help="train these rows, and their base")
    return result


def main(args: argparse.Namespace) -> None:
    """Begin, unless it is at work already."""
    begin("ablation", lambda: work(args.only), args.wait)


if __name__ == "__main__":
    sys.exit(run_script(main, parser()))
