"""Networks of timm: making one with its weights, and its parts in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from model.weights import CONFIG_KEY, hub_files, local_path, read_state_dict
from utils.errors import UserError, nearest

_BACKBONE = "arch.args.backbone"
_MIN_SIDE = 32  # most networks halve five times


def create_network(backbone: str, label_dim: int, indim: int, weights: str | None, dropout: float) -> nn.Module:
    """timm's network with a last layer for `label_dim` classes; see `TimmModel` for the arguments.

    Raises:
        UserError: timm has no such network, it does not take these arguments, or the weights cannot be had.
    """
    import timm

    cfg = _pretrained_cfg(backbone)
    if not cfg.classifier:
        raise UserError(_BACKBONE, f"{backbone} has no last layer to replace", "take a network for classification")
    if weights is None:
        return _create(backbone, in_chans=indim, num_classes=label_dim, drop_rate=dropout)
    path = _weights_file(backbone, cfg, weights)
    # With the classes that the weights have, timm refuses every tensor that is missing or left over; with others, no.
    try:
        network = timm.create_model(
            backbone,
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": read_state_dict(path)},
            in_chans=indim,
            num_classes=cfg.num_classes,
            drop_rate=dropout,
        )
    except (RuntimeError, KeyError, ValueError, AssertionError, AttributeError) as error:
        what = f"the weights do not fit {backbone}: {' '.join(str(error).split())}"
        raise UserError(path, what, "use weights of this very network, last layer included") from error
    del network.pretrained_cfg["state_dict"]
    network.reset_classifier(label_dim)
    return network


def _create(backbone: str, **args: Any) -> nn.Module:
    import timm

    try:
        return timm.create_model(backbone, pretrained=False, **args)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise UserError(_BACKBONE, f"timm cannot make {backbone}: {error}") from error


def _pretrained_cfg(backbone: str) -> Any:
    """What timm knows of a network's weights."""
    import timm

    if not timm.is_model(backbone):
        raise UserError(_BACKBONE, f"timm has no network {backbone!r}", _nearest(backbone, timm.list_models()))
    try:
        return timm.get_pretrained_cfg(backbone)
    except RuntimeError as error:
        known = timm.list_pretrained(f"{backbone.partition('.')[0]}.*")
        raise UserError(_BACKBONE, f"timm has no weights {backbone!r}", nearest(backbone, known)) from error


def _nearest(name: str, choices: list[str]) -> str:
    hint = nearest(name, choices)
    # There are more than a thousand.
    return hint if hint.startswith("did you mean") else "timm.list_models() lists them"


def _weights_file(backbone: str, cfg: Any, weights: str) -> Path:
    if weights != "hub":
        return local_path(weights)
    if not cfg.hf_hub_id:
        what = f"there are no weights of {backbone} on the hub"
        raise UserError(CONFIG_KEY, what, "name a file with weights, or null for random numbers")
    (path,) = hub_files(cfg.hf_hub_id, [cfg.hf_hub_filename or "model.safetensors"])
    return path


def network_problem(backbone: str, shape: Sequence[int]) -> str | None:
    """Why a network cannot take pictures ``(channels, freq, time)``; None where it can.

    Raises:
        UserError: timm has no such network.
    """
    cfg = _pretrained_cfg(backbone)
    side = tuple(shape[1:])
    if cfg.fixed_input_size and side != tuple(cfg.input_size[1:]):
        return f"{backbone} takes pictures of {cfg.input_size[1]}x{cfg.input_size[2]}, the items are {tuple(shape)}"
    if min(side) < _MIN_SIDE:
        return f"{backbone} takes pictures of at least {_MIN_SIDE}x{_MIN_SIDE}, the items are {tuple(shape)}"
    return None


def classifier_names(network: nn.Module) -> list[str]:
    """Names of the last layer's parameters."""
    layers = network.pretrained_cfg["classifier"]
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    prefixes = tuple(f"{layer}." for layer in layers)
    return [name for name, _ in network.named_parameters() if name.startswith(prefixes)]


def stages_of(network: nn.Module) -> list[list[str]]:
    """Names of all other parameters, from the stem on, by stage."""
    from timm.models import group_parameters

    last = set(classifier_names(network))
    groups: dict[int, list[str]] = group_parameters(network, network.group_matcher(coarse=True))
    stages = [[name for name in groups[number] if name not in last] for number in sorted(groups)]
    return [stage for stage in stages if stage]
