"""The checkpoint of an ensemble: all its networks in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.decision import Priors
from trainer.coarser import Coarser
from trainer.group import Group
from trainer.trained import Trained
from utils.config import ConfigParser
from utils.versions import command_line, environment


def ensemble_config(group: Group, label_dim: int, coarser: Coarser | None = None) -> ConfigParser:
    """The config of a group's ensemble: the first member's, with all its networks, and nothing to validate on.

    These are those of its parts or, where there is a final run, that one's alone.

    Args:
        label_dim: number of classes of the members.
        coarser: how they are put together, if they are.
    """
    parts = [group.final] if group.final else group.parts
    config = parts[0].config.to_dict()
    members = [
        {
            "type": part.config["arch"]["type"],
            "args": part.config.get("arch.args", {}),
            "precision": part.config.get("trainer.precision", "fp32"),
        }
        for part in parts
    ]
    config["arch"] = {"type": "Ensemble", "args": {"label_dim": label_dim, "members": members}}
    args = config["data_loader"]["args"]
    args["validation_split"] = 0
    config.pop("distillation", None)
    if coarser:
        config["arch"]["args"] |= {"label_dim": len(coarser.classes), "merged": [list(own) for own in coarser.groups]}
        args["level"] = group.level
    # Each member is computed in its own precision.
    config["trainer"]["precision"] = "fp32"
    return ConfigParser(config)


def ensemble_checkpoint(
    config: ConfigParser, parts: Sequence[Trained], out_of_fold: Path, coarser: Coarser | None = None
) -> dict[str, Any]:
    """What test.py takes.

    Args:
        config: of `ensemble_config`.
        parts: in the order of the config's members; their inputs differ in nothing but normalisation.
        out_of_fold: the file with the out-of-fold scores.
        coarser: see `ensemble_config`.
    """
    first = parts[0]
    state = {
        f"members.{number}.{name}": tensor.cpu()
        for number, part in enumerate(parts)
        for name, tensor in part.model.state_dict().items()
    }
    state["mean"] = torch.tensor([part.spec.mean for part in parts])
    state["std"] = torch.tensor([part.spec.std for part in parts])
    checkpoint = {
        "arch": "Ensemble",
        "epoch": max(part.epoch for part in parts),
        "state_dict": state,
        "config": config.to_dict(),
        "classes": list(coarser.classes if coarser else first.classes),
        "input": replace(first.spec, mean=0.0, std=1.0).to_dict(),
        "data": first.data,
        "origins": [{"command": command_line(), "environment": environment()}],
        "parts": [str(part.path) for part in parts],
        "out_of_fold": str(out_of_fold),
    }
    if priors := ensemble_priors(parts, coarser):
        checkpoint["priors"] = priors.to_dict()
    if coarser and (priors := ensemble_priors(parts)):
        checkpoint["member_priors"] = priors.to_dict()
    return checkpoint


def ensemble_priors(parts: Sequence[Trained], coarser: Coarser | None = None) -> Priors | None:
    """The class proportions that an ensemble was trained for: the means of those of its parts, if all have them."""
    known = [part.priors for part in parts if part.priors]
    if len(known) < len(parts):
        return None
    priors = Priors.of(np.mean([own.pi for own in known], axis=0), np.mean([own.q for own in known], axis=0))
    return coarser.priors(priors) if coarser else priors
