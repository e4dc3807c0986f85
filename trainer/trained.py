"""A checkpoint, ready to predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_loader.frontend import InputSpec
from model import architectures
from model.decision import Priors, read_priors
from trainer.building import make_model
from utils.arguments import check_arguments, matches
from utils.checkpoint import load_checkpoint, load_weights, refuse_other_weights
from utils.config import ConfigParser
from utils.device import choose_precision
from utils.errors import UserError


@dataclass(frozen=True)
class Trained:
    """A checkpoint, ready to predict.

    Attributes:
        config: that it was trained with.
        model: in evaluation mode on `device`.
        spec: what its input is.
        classes: class names in the order of the outputs.
        epoch: after which it was saved.
        data: a fingerprint of each split of the data that it was trained with; None in earlier checkpoints.
        origins: what it was trained with, by one process after the other: command, commit, versions.
        out_of_fold: of an ensemble, where its out-of-fold scores are; else None.
        priors: the class proportions that it was trained for; None in earlier checkpoints and for other data sets.
        member_priors: those of an ensemble's members, where they are of finer classes; else the same.
        split: a digest of which items it was trained on and which validated; None in earlier checkpoints.
    """

    path: Path
    config: ConfigParser
    model: nn.Module
    spec: InputSpec
    classes: tuple[str, ...]
    epoch: int
    device: torch.device
    precision: str
    data: dict[str, str] | None
    origins: list[dict[str, Any]]
    priors: Priors | None = None
    out_of_fold: str | None = None
    member_priors: Priors | None = None
    split: str | None = None

    @property
    def rule(self) -> str:
        """How the class follows from the probabilities where nothing else is asked for, see `decide`."""
        return self.config.get("decide", "argmax")

    @property
    def in_context(self) -> bool:
        """Whether events are taken in the context of their recordings, see `in_context`."""
        return self.config.get("recording_context", False)

    @property
    def finer(self) -> list[list[int]] | None:
        """Of an ensemble one level coarser than its members, which of their classes make each of its own.

        Events in context and decisions for the score take the probabilities of these classes. None where their
        proportions are not known, too: earlier checkpoints do not hold them.
        """
        return self.config.get("arch.args.merged") if self.member_priors else None

    @property
    def finest_model(self) -> nn.Module:
        """The model, with the classes of its members where there is `finer`."""
        return self.model.unmerged() if self.finer else self.model


def load_trained(path: Path, device: torch.device, changes: dict[str, Any] | None = None) -> Trained:
    """Rebuild the model of a checkpoint; nothing but the checkpoint is needed.

    Args:
        changes: of its config's data loader arguments (data_dir, batch_size, num_workers).

    Raises:
        UserError: the file is no checkpoint, or does not fit its own config.
    """
    checkpoint = load_checkpoint(path)
    classes, epoch = tuple(checkpoint["classes"]), checkpoint["epoch"]
    try:
        config = ConfigParser(checkpoint["config"]).changed("data_loader.args", **changes or {})
        spec = InputSpec.from_dict(checkpoint["input"])
        _check_arch(config, spec, classes)
    except UserError as error:
        raise UserError(path, f"does not fit this program: {error.subject} {error.what}", error.hint) from error
    model = _make_model(config, spec, checkpoint["state_dict"], path)
    load_weights(model, checkpoint["state_dict"], path)
    model.to(device, memory_format=torch.channels_last).eval()
    precision = choose_precision(config.get("trainer.precision", "fp32"), device)
    data = checkpoint.get("data") if matches(checkpoint.get("data"), dict[str, str]) else None
    origins = checkpoint.get("origins") if matches(checkpoint.get("origins"), list[dict[str, Any]]) else []
    priors = read_priors(checkpoint, "priors", len(classes))
    merged = config.get("arch.args.merged")
    member_priors = read_priors(checkpoint, "member_priors", sum(map(len, merged))) if merged else priors
    out_of_fold = checkpoint.get("out_of_fold") if matches(checkpoint.get("out_of_fold"), str) else None
    return Trained(
        path,
        config,
        model,
        spec,
        classes,
        epoch,
        device,
        precision,
        data,
        origins,
        priors=priors,
        out_of_fold=out_of_fold,
        member_priors=member_priors,
        split=checkpoint.get("split") if matches(checkpoint.get("split"), str) else None,
    )


def _check_arch(config: ConfigParser, spec: InputSpec, classes: tuple[str, ...]) -> None:
    architecture = architectures.lookup(config["arch"]["type"], "arch.type")
    args = check_arguments(architecture, config.get("arch.args", {}), "arch.args", filled_in=("input_shape",))
    if args.get("label_dim") != len(classes):
        raise UserError("arch.args.label_dim", f"is {args.get('label_dim')}, for {len(classes)} classes")
    if problem := architecture.input_problem(args, spec.shape):
        raise UserError("arch.args", problem)


def _make_model(config: ConfigParser, spec: InputSpec, state_dict: Mapping[str, Any], path: Path) -> nn.Module:
    """The network of a checkpoint's config, first without its tensors: a config may describe more than there is."""
    for place in ("meta", "cpu"):
        try:
            with torch.device(place):
                model = make_model(config, restore=True, input_shape=spec.shape)
        except (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, AssertionError) as error:
            # Not every network can be made without tensors; one that cannot be made at all is wrong.
            if place == "cpu":
                raise UserError(path, f"its config describes no network: {error}") from error
        else:
            refuse_other_weights(model, state_dict, path)
    return model
