"""The wav2vec 2.0 network (arXiv 2006.11477) with its weights, as torchaudio has it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logger.log import get_logger
from utils.checkpoint import is_state_dict, load_tensors
from utils.errors import UserError

if TYPE_CHECKING:
    from torchaudio.models import Wav2Vec2Model

logger = get_logger(__name__)

RATE = 16000
# The file of torchaudio.pipelines.WAV2VEC2_BASE: pretrained on 960 hours of LibriSpeech.
HUB_URL = "https://download.pytorch.org/torchaudio/models/wav2vec2_fairseq_base_ls960.pth"
STRIDES = (5, 2, 2, 2, 2, 2, 2)
KERNELS = (10, 3, 3, 3, 3, 2, 2)
HEAD_DIM = 64
RANDOM_SEED = 0
_LAYERS = "encoder.transformer.layers."
_POSITION = "encoder.transformer.pos_conv_embed.conv."


def weights_path(weights: str) -> Path:
    """The file that `weights` ("hub" or a file) stands for; the hub's is downloaded where it is not cached.

    Raises:
        UserError: there is no such file, or it could not be downloaded.
    """
    if weights != "hub":
        path = Path(weights).expanduser().resolve()
        if not path.is_file():
            raise UserError(weights, "there is no such weights file", 'give "hub", "random" or the path of a file')
        return path
    path = Path(torch.hub.get_dir()) / "checkpoints" / HUB_URL.rsplit("/", 1)[-1]
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(HUB_URL, str(path))
        except OSError as error:
            raise UserError(
                path,
                f"the weights of wav2vec 2.0 are not here and could not be downloaded: {error}",
                f'fetch {HUB_URL} and put it there, or give its path: --weights FILE, "weights" in a frontend',
            ) from error
    return path


def weights_fingerprint(weights: str) -> str:
    """What identifies the weights in a record: "random", or the sha256 of the file used."""
    if weights == "random":
        return "random"
    with weights_path(weights).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_state(path: Path) -> dict[str, Tensor]:
    state = load_tensors(path, "is not a PyTorch checkpoint", f"fetch {HUB_URL}")
    if not is_state_dict(state):
        raise UserError(path, "is not a state dict of tensors", f"fetch {HUB_URL}")
    # The head of torchaudio's speech recognition bundles: it comes after the layers that make a feature.
    return {name: tensor for name, tensor in state.items() if name not in ("aux.weight", "aux.bias")}


def _arguments(state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Arguments of torchaudio.models.wav2vec2_model, from the shapes in the state dict; the rest as in base."""
    convolutions = [f"feature_extractor.conv_layers.{i}.conv.weight" for i in range(len(STRIDES))]
    projection = "encoder.feature_projection.projection.weight"
    feed_forward = f"{_LAYERS}0.feed_forward.intermediate_dense.weight"
    # Saved by torch.nn.utils.weight_norm or by its successor in torch.nn.utils.parametrizations.
    position = f"{_POSITION}weight_v"
    if position not in state:
        position = f"{_POSITION}parametrizations.weight.original1"
    dims = {**dict.fromkeys(convolutions, 3), projection: 2, feed_forward: 2, position: 3}
    missing = [name for name in dims if name not in state]
    if missing:
        what = f"is not a wav2vec 2.0 state dict of torchaudio: it has no {', '.join(missing)}"
        raise UserError(path, what, f"fetch {HUB_URL}")
    for name, expected in dims.items():
        if state[name].ndim != expected or 0 in state[name].shape:
            raise UserError(path, f"{name} has the shape {tuple(state[name].shape)}", f"fetch {HUB_URL}")
    dim, kernel = state[projection].shape[0], state[position].shape
    if dim % HEAD_DIM or dim % kernel[1]:
        raise UserError(path, f"has {dim} dimensions, in groups of {kernel[1]}, which is no wav2vec 2.0 network")
    shapes = [state[name].shape for name in convolutions]
    layers = {name[len(_LAYERS) :].split(".")[0] for name in state if name.startswith(_LAYERS)}
    return {
        "extractor_conv_layer_config": [(s[0], s[2], stride) for s, stride in zip(shapes, STRIDES, strict=True)],
        "encoder_embed_dim": dim,
        "encoder_pos_conv_kernel": kernel[2],
        "encoder_pos_conv_groups": dim // kernel[1],
        "encoder_num_layers": len(layers),
        "encoder_num_heads": dim // HEAD_DIM,
        "encoder_ff_interm_features": state[feed_forward].shape[0],
    }


def build_network(seed: int = RANDOM_SEED, **arguments: Any) -> Wav2Vec2Model:
    """wav2vec 2.0 base with random weights from a seed, in eval mode; the global random state is left alone.

    Args:
        seed: seed of the weights.
        arguments: arguments of torchaudio.models.wav2vec2_model that differ from base.
    """
    from torchaudio.models import wav2vec2_model

    base: dict[str, Any] = {
        "extractor_mode": "group_norm",
        "extractor_conv_layer_config": [(512, k, stride) for k, stride in zip(KERNELS, STRIDES, strict=True)],
        "extractor_conv_bias": False,
        "encoder_embed_dim": 768,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 128,
        "encoder_pos_conv_groups": 16,
        "encoder_num_layers": 12,
        "encoder_num_heads": 12,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 3072,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": False,
        "encoder_layer_drop": 0.05,
        "aux_num_out": None,
    }
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        network = wav2vec2_model(**(base | arguments))
    return network.eval().requires_grad_(False)


def _load_file(path: Path) -> Wav2Vec2Model:
    state = _read_state(path)
    arguments = _arguments(state, path)
    # First without memory: the shape of one tensor may ask for a network of terabytes.
    for place in ("meta", "cpu"):
        try:
            with torch.device(place):
                network = build_network(**arguments)
            result = network.load_state_dict(state, strict=False, assign=place == "meta")
        except (RuntimeError, ValueError, ArithmeticError, AssertionError) as error:
            raise UserError(path, "its tensors do not fit together: " + " ".join(str(error).split())) from error
    left = {"missing": result.missing_keys, "unexpected": result.unexpected_keys}
    problems = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in left.items() if names)
    if problems:
        raise UserError(path, f"is not a wav2vec 2.0 state dict of torchaudio; {problems}", f"fetch {HUB_URL}")
    return network


def load_network(weights: str) -> Wav2Vec2Model:
    """The network on the CPU, in eval mode.

    Args:
        weights: "hub" (torchaudio's WAV2VEC2_BASE), "random" (with a warning: meaningless), or a file in the format
            of torchaudio's, a state dict. Dimensions, layers and kernels are read off its shapes; heads have 64
            dimensions each. A speech recognition head ("aux") is dropped.

    Raises:
        UserError: no such file, no download, not a checkpoint, or tensors missing or left over.
    """
    if weights == "random":
        logger.warning(
            "wav2vec 2.0 HAS RANDOM WEIGHTS (--weights random): its features are MEANINGLESS, good for trying the "
            "program and for nothing else."
        )
        return build_network()
    return _load_file(weights_path(weights))
