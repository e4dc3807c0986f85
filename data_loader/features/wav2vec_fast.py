"""wav2vec 2.0 base (arXiv 2006.11477) for inference: torchaudio's weights, rearranged for speed.

What it computes is `torchaudio.models.Wav2Vec2Model.extract_features` of one item at a time. How, and why:

- Every convolution is a matrix product of its overlapping frames. On a CPU 1-D convolutions miss oneDNN's fast path,
  and its bf16 2-D ones are not to be trusted: with the positional convolution's shape torch 2.11 returned NaN.
- Weights are converted and brought into oneDNN's order once; autocast would do it at each call. Calling oneDNN also
  keeps fp32 off MKL, which is less than half as fast on AMD processors.
- The first convolution's GroupNorm is linear once its statistics are known, and those follow from the covariance of
  the waveform's windows. So it goes into the convolution's weights, item by item.
- Items lie one behind the other, unpadded: no padding is computed, and none has to be masked. Where frames see each
  other an item is computed alone, so that its features do not depend on its batch.
- The encoder takes two seconds at a time, so that what lies between its layers stays in the cache.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from data_loader.features.linear import Linear
from data_loader.features.wav2vec_network import load_network, weights_path

if TYPE_CHECKING:
    from torchaudio.models import Wav2Vec2Model

# Frames of the encoder's output computed at once on a CPU. What is left is cut at a multiple of `_STEP`, so that sizes
# come again: oneDNN takes a millisecond to prepare a product of a size that it has not seen.
_PIECE = 96
_STEP = 16
# Attention weights computed at once on a CPU: they stay in the cache.
_SCORES = 1_000_000


class LayerNorm:
    """Over the last axis, in fp32."""

    def __init__(self, norm: torch.nn.LayerNorm) -> None:
        self.arguments = norm.normalized_shape, norm.weight, norm.bias, norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, *self.arguments)


class FirstConvolution:
    """Convolution of one waveform with one channel, normalised over time for each channel (GroupNorm), GELU."""

    def __init__(self, block: torch.nn.Module, dtype: torch.dtype) -> None:
        self.kernel, self.stride = block.kernel_size, block.stride
        self.weight = block.conv.weight[:, 0].double()
        norm = block.layer_norm
        self.gain, self.shift, self.eps = norm.weight.double(), norm.bias.double(), norm.eps
        self.dtype = dtype

    def normalised(self, waveform: Tensor) -> tuple[Tensor, Linear]:
        """The waveform's windows ``(frames, inputs)``, and the product that makes all frames of them, normalised.

        In double precision: a channel that passes only weak frequencies is a small difference of large numbers.
        """
        windows = waveform.double().unfold(0, self.kernel, self.stride)
        windows = windows - windows.mean(0)
        covariance = windows.T @ windows / len(windows)
        variance = ((self.weight @ covariance) * self.weight).sum(1)
        gain = self.gain * (variance + self.eps).rsqrt()
        # The shift is the weight of a constant input.
        windows = functional.pad(windows, (0, 1), value=1.0)
        weight = torch.cat([gain[:, None] * self.weight, self.shift[:, None]], dim=1)
        if self.dtype == torch.bfloat16:
            # For the same reason as above: sums of two bf16 numbers are as fine as 16-bit audio.
            (windows, rest), (weight, small) = _in_two(windows), _in_two(weight)
            windows, weight = torch.cat([windows, rest, windows], dim=1), torch.cat([weight, weight, small], dim=1)
        return windows.to(self.dtype), Linear(weight, None, self.dtype, reorder=False)

    def __call__(self, windows: Tensor, product: Linear) -> Tensor:
        """``(frames, channels)`` of windows and the product from `normalised`."""
        return product(windows, gelu=True)


def _in_two(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two bf16 tensors whose sum is nearly `x`."""
    high = x.to(torch.bfloat16)
    return high, (x - high).to(torch.bfloat16)


class Convolution:
    """Convolution over time without bias, GELU."""

    def __init__(self, block: torch.nn.Module, dtype: torch.dtype) -> None:
        self.kernel, self.stride = block.kernel_size, block.stride
        self.product = Linear(block.conv.weight.transpose(1, 2).flatten(1), None, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """``(frames, channels)`` of ``(frames, channels)``."""
        channels = x.shape[1]
        return self.product(x.flatten().unfold(0, self.kernel * channels, self.stride * channels), gelu=True)


class PositionalConvolution:
    """Grouped convolution over time that keeps the number of frames, GELU; a matrix product for each group."""

    def __init__(self, conv: torch.nn.Conv1d, dtype: torch.dtype) -> None:
        self.kernel = conv.kernel_size[0]
        products = zip(conv.weight.chunk(conv.groups), conv.bias.chunk(conv.groups), strict=True)
        self.groups = [Linear(weight.transpose(1, 2).flatten(1), bias, dtype) for weight, bias in products]

    def __call__(self, x: Tensor) -> Tensor:
        """``(items, frames, channels)`` of the same."""
        items, frames, channels = x.shape
        size = channels // len(self.groups)
        before = self.kernel // 2
        padded = functional.pad(x, (0, 0, before, self.kernel - 1 - before))
        groups = padded.unflatten(2, (-1, size)).permute(2, 0, 1, 3).flatten(2)
        results = [
            product(group.unfold(1, self.kernel * size, size).flatten(0, 1), gelu=True)
            for product, group in zip(self.groups, groups, strict=True)
        ]
        return torch.cat(results, dim=1).view(items, frames, channels)


class Attention:
    """Self-attention of each item's frames with each other."""

    def __init__(self, attention: torch.nn.Module, dtype: torch.dtype) -> None:
        self.heads = attention.num_heads
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        weight = torch.cat([query.weight * attention.scaling, key.weight, value.weight])
        # A bias of the keys adds the same to all scores of a query: softmax does not see it.
        bias = torch.cat([query.bias * attention.scaling, torch.zeros_like(key.bias), value.bias])
        self.project_in = Linear(weight, bias, dtype)
        self.project_out = Linear(attention.out_proj.weight, attention.out_proj.bias, dtype)

    def __call__(self, x: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        """``(frames of all items, dims)`` of the same; `runs` are numbers of items, and frames of each, in order."""
        mixed = []
        projected = self.project_in(x).split([items * frames for items, frames in runs])
        for part, (items, frames) in zip(projected, runs, strict=True):
            query, key, value = part.view(items, frames, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            mixed.append(_attend(query, key, value).transpose(1, 2).reshape(items * frames, -1))
        return self.project_out(torch.cat(mixed))


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``softmax(query @ key.T) @ value``, all ``(items, heads, frames, head dims)``."""
    if query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    # More than twice as fast in bf16 as the function above, whose CPU kernel does not use oneDNN.
    step = max(1, _SCORES // query.shape[2] ** 2)
    parts = zip(*(tensor.flatten(0, 1).contiguous().split(step) for tensor in (query, key, value)), strict=True)
    return torch.cat([torch.bmm(torch.bmm(q, k.mT).softmax(-1), v) for q, k, v in parts]).view(query.shape)


class TransformerLayer:
    """Attention and feed-forward network, each added to its input and normalised."""

    def __init__(self, layer: torch.nn.Module, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.attention = Attention(layer.attention, dtype)
        self.attention_norm = LayerNorm(layer.layer_norm)
        inner, outer = layer.feed_forward.intermediate_dense, layer.feed_forward.output_dense
        self.inner, self.outer = Linear(inner.weight, inner.bias, dtype), Linear(outer.weight, outer.bias, dtype)
        self.norm = LayerNorm(layer.final_layer_norm)

    def __call__(self, x: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
        """``(frames of all items, dims)`` fp32 of the same."""
        x = self.attention_norm(x + self.attention(x.to(self.dtype), runs))
        return self.norm(x + self.outer(self.inner(x.to(self.dtype), gelu=True)))


class FastWav2Vec2:
    """The network. It holds no state between calls, so threads may share it.

    Args:
        network: torchaudio's, in the form of base (GroupNorm in the encoder, no bias there, layers normalised last),
            on the device that is to compute. It is not needed afterwards.
        dtype: of weights and products, float32 or bfloat16. Statistics, residuals and normalisations are fp32.
    """

    def __init__(self, network: Wav2Vec2Model, dtype: torch.dtype) -> None:
        self.dtype = dtype
        first, *others = network.feature_extractor.conv_layers
        self.first = FirstConvolution(first, dtype)
        self.convolutions = [Convolution(block, dtype) for block in others]
        projection = network.encoder.feature_projection
        self.projection_norm = LayerNorm(projection.layer_norm)
        self.projection = Linear(projection.projection.weight, projection.projection.bias, dtype)
        self.position = PositionalConvolution(network.encoder.transformer.pos_conv_embed.conv, dtype)
        self.position_norm = LayerNorm(network.encoder.transformer.layer_norm)
        self.layers = [TransformerLayer(layer, dtype) for layer in network.encoder.transformer.layers]

    @torch.inference_mode()
    def __call__(self, waveforms: Tensor, lengths: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Output of one transformer layer; the layers after it are not run.

        Args:
            waveforms: ``(batch, samples)`` float32 at 16 kHz on the network's device, zero behind each length.
            lengths: ``(batch,)`` int64; an item of less than one frame (400 samples) is zero-padded to it.
            layer: counted from 1.

        Returns:
            ``(batch, frames, dims)`` float32, zero behind an item's frames, and ``(batch,)`` int64, the frames of each
            item. An item's frames do not depend on the batch it is in.
        """
        # Samples that one frame needs.
        least = (self._windows(1) - 1) * self.first.stride + self.first.kernel
        waveforms = functional.pad(waveforms, (0, max(0, least - waveforms.shape[1])))
        ends = lengths.clamp(min=least).tolist()
        pieces = [self._encode(row[:end]) for row, end in zip(waveforms, ends, strict=True)]
        counts = [sum(map(len, item)) for item in pieces]
        encoded = torch.cat(list(itertools.chain(*pieces)))
        x = self.projection(self.projection_norm(encoded.float()).to(self.dtype))
        position = self.position(pad_sequence(x.split(counts), batch_first=True))
        position = torch.cat([row[:count] for row, count in zip(position, counts, strict=True)])
        x = self.position_norm(x.float() + position)
        runs = [(len(list(run)), count) for count, run in itertools.groupby(counts)]
        for transform in self.layers[:layer]:
            x = transform(x, runs)
        return pad_sequence(x.split(counts), batch_first=True), torch.tensor(counts, device=lengths.device)

    def _windows(self, frames: int) -> int:
        """Windows of the first convolution that frames of the encoder see."""
        for convolution in reversed(self.convolutions):
            frames = (frames - 1) * convolution.stride + convolution.kernel
        return frames

    def _encode(self, waveform: Tensor) -> list[Tensor]:
        """The convolutional encoder: ``(frames, channels)`` of one item, in pieces."""
        windows, product = self.first.normalised(waveform)
        hop = self._windows(2) - self._windows(1)
        left = (len(windows) - self._windows(1)) // hop + 1
        pieces = []
        while left:
            piece = left
            if waveform.device.type == "cpu":
                piece = _PIECE if left >= _PIECE else left // _STEP * _STEP or left
            x = self.first(windows[: self._windows(piece)], product)
            for convolution in self.convolutions:
                x = convolution(x)
            pieces.append(x)
            windows = windows[piece * hop :]
            left -= piece
        return pieces


_loading = threading.Lock()


@functools.lru_cache(maxsize=2)
def _cached(weights: str, stamp: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> FastWav2Vec2:
    return FastWav2Vec2(load_network(weights).to(device), dtype)


def fast_network(weights: str, device: torch.device, dtype: torch.dtype) -> FastWav2Vec2:
    """The network with the weights of `load_network`; one for all threads, for as long as the file stays the same.

    Raises:
        UserError: see `load_network`.
    """
    stamp: tuple[int, ...] = ()
    if weights != "random":
        path = weights_path(weights)
        weights, status = str(path), path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
    with _loading:
        return _cached(weights, stamp, device, dtype)
