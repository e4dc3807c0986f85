"""Features as the store keeps them: 8-bit integers or 16-bit floating-point numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def encode(features: Tensor, unit_range: bool, repeats: int) -> np.ndarray:
    """Features ``(batch, ...)`` float32 as the store keeps them: uint8 for values in [0, 1], else float16."""
    if repeats > 1:
        features = features[:, :1]
    if unit_range:
        # Half a step up and cut off is rounding to the nearest.
        return features.mul(255.0).add_(0.5).clamp_(0, 255).to(torch.uint8).cpu().numpy()
    largest = torch.finfo(torch.float16).max
    return features.clamp(-largest, largest).to(torch.float16).cpu().numpy()


def decode(stored: Tensor, repeats: int = 1) -> Tensor:
    """Features ``(batch, ...)`` float32 from what `encode` made, on the device of `stored`."""
    features = stored.float().div_(255.0) if stored.dtype == torch.uint8 else stored.float()
    return features.expand(-1, repeats, *features.shape[2:]) if repeats > 1 else features
