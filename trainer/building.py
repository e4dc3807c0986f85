"""Building what a config names: loader, model and loss."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from torch import nn

from base.base_data_loader import BaseDataLoader
from data_loader import data_loaders
from model import architectures, losses
from model.loss import balanced_weights
from model.weights import without_weights
from utils.config import ConfigParser
from utils.distributed import rank, world_size


def make_loader(config: ConfigParser) -> BaseDataLoader:
    """The training loader of a config; the seed of its split is the config's unless it has its own."""
    args = config.get("data_loader.args", {})
    common = {"rank": rank(), "world_size": world_size()}
    loader = config.init_obj("data_loader", data_loaders, seed=args.get("seed", config.seed), **common)
    # Another seed of the same folds draws other items, in another order.
    loader.sampler.seed = config.seed
    return loader


def make_model(config: ConfigParser, restore: bool = False, input_shape: Sequence[int] = ()) -> nn.Module:
    """The model of a config, on the CPU.

    Args:
        restore: all its weights will come from a checkpoint: load no pretrained ones.
        input_shape: of one item, for an architecture that has an argument of this name.
    """
    architecture = architectures.lookup(config["arch"]["type"], "arch.type")
    args = config.get("arch.args", {})
    if restore:
        args = without_weights(architecture, args)
    if "input_shape" in inspect.signature(architecture).parameters:
        args = {**args, "input_shape": tuple(input_shape)}
    return architecture(**args)


def make_criterion(config: ConfigParser, loader: BaseDataLoader) -> nn.Module:
    """The loss of a config; the weight "balanced" is computed from the training items."""
    section = config["loss"]
    args = {} if isinstance(section, str) else section.get("args", {})
    if args.get("weight") == "balanced":
        fine = getattr(losses[section["type"]], "details", None) == "fine"
        counts = loader.fine_counts() if fine else loader.class_counts()
        return config.init_obj("loss", losses, weight=balanced_weights(counts.tolist()))
    return config.init_obj("loss", losses)
