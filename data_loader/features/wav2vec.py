"""Features from wav2vec 2.0 (arXiv 2006.11477): one layer's output as a picture, or as input of the AST."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from data_loader.features.common import choose, resample, resize_frames
from data_loader.features.feature import register_feature
from data_loader.features.wav2vec_fast import fast_network
from data_loader.features.wav2vec_network import RATE
from utils.device import choose_precision
from utils.errors import UserError

AST_LAYER = 8
AST_FRAMES = 128
PICTURE_LAYER = 12
SIZE = 224
Precision = Literal["auto", "fp32", "bf16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def _frames(
    waveforms: Tensor, rate: int, lengths: Tensor, layer: int, weights: str, precision: Precision
) -> tuple[Tensor, Tensor]:
    choose("precision", precision, ("auto", *_DTYPES))
    dtype = _DTYPES[choose_precision(precision, waveforms.device)]
    network = fast_network(weights, waveforms.device, dtype)
    if len(network.layers) < layer:
        raise UserError(weights, f"has {len(network.layers)} transformer layers, the feature needs {layer}")
    return network(*resample(waveforms, rate, RATE, lengths), layer)


@register_feature("ast_wav2vec", batch_size=32, batch_seconds=40.0, resamples=True)
def ast_wav2vec(
    waveforms: Tensor, rate: int, lengths: Tensor, *, weights: str = "hub", precision: Precision = "auto"
) -> Tensor:
    """Transformer layer 8 of wav2vec 2.0 base, ``(batch, 768, 128)``, ``(batch, channels, frames)``.

    The audio is resampled to 16 kHz; an item's frames (one in 20 ms) are resized to 128 (bilinear, antialiased).

    Args:
        waveforms: ``(batch, samples)`` float32.
        rate: samples a second.
        lengths: ``(batch,)`` int64.
        weights: "hub", "random" or a file, see `load_network`. The first axis is the network's dimension.
        precision: of the network's products. "auto" is bf16 where the device computes it in hardware, else fp32.
            Against torchaudio's network on one item in fp32, each item's frames have a relative RMS error below 1e-4
            with "fp32"; with "bf16" below 0.02, and a correlation above 0.9998 (measured with random weights; no more
            than torch.autocast's error with sharper ones). A store and a checkpoint record which it was.

    Raises:
        UserError: the weights cannot be had, or are not those of such a network.
    """
    frames, counts = _frames(waveforms, rate, lengths, AST_LAYER, weights, precision)
    return resize_frames(frames, counts, AST_FRAMES).transpose(1, 2).contiguous()


@register_feature("wav2vec", batch_size=32, batch_seconds=40.0, resamples=True)
def wav2vec(
    waveforms: Tensor, rate: int, lengths: Tensor, *, weights: str = "hub", precision: Precision = "auto"
) -> Tensor:
    """Transformer layer 12 of wav2vec 2.0 base as a picture, ``(batch, 1, 224, 224)``, ``(batch, 1, channel, time)``.

    The 768 channels and an item's frames are each resized to 224 (bilinear, antialiased). Not scaled to [0, 1].
    Arguments and errors as for `ast_wav2vec`.
    """
    frames, counts = _frames(waveforms, rate, lengths, PICTURE_LAYER, weights, precision)
    channels = resize_frames(frames, counts, SIZE).transpose(1, 2)
    every = torch.full_like(counts, channels.shape[1])
    return resize_frames(channels, every, SIZE).unsqueeze(1)
