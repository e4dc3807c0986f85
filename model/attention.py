"""Attention for the networks of transformers, computed the way that is fastest where it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

NAME = "fastest_here"


def attention_name() -> str:
    """What a config of transformers names as its ``attn_implementation`` to have `attention`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attention)
    return NAME


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention, as transformers calls it.

    In bfloat16 on a CPU, PyTorch's fused kernel takes more than twice as long as two matrix products, whatever the
    number of tokens; there these are taken, and the weights kept for the backward pass: ``batch * heads * tokens**2``
    numbers a layer.

    Args:
        query, key, value: ``(batch, heads, tokens, head size)``.
        attention_mask: added to the scores, or None.
        scaling: of the scores; the inverse root of the head size if None.
        dropout: of the weights.

    Returns:
        ``(batch, tokens, heads, head size)``; None in place of the weights.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and attention_mask is None and not dropout:
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        weights = torch.softmax(torch.matmul(query * scaling, key.transpose(2, 3)), dim=-1)
        output = torch.matmul(weights, value)
    else:
        output = scaled_dot_product_attention(query, key, value, attention_mask, dropout, scale=scaling)
    return output.transpose(1, 2).contiguous(), None
