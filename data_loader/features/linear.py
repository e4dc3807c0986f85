"""Matrix products at the speed that the processor has."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


class Linear:
    """``x @ weight.T + bias``, and GELU if asked for; by oneDNN on CPUs that it is good at.

    Args:
        weight: ``(outputs, inputs)``.
        bias: ``(outputs,)`` or None.
        dtype: of input, output and weights; sums are fp32.
        reorder: bring the weights into oneDNN's order. It pays for what is used more than once.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, reorder: bool = True) -> None:
        self._dtype = dtype
        # Without oneDNN's, PyTorch's bf16 products are a tenth as fast as fp32: then rounded numbers go through fp32.
        inner = torch.float32 if dtype == torch.bfloat16 and not _multiplies_bf16(weight.device) else dtype
        self._inner = inner
        self.weight = weight.to(dtype).to(inner).contiguous()
        self.bias = None if bias is None else bias.to(dtype).to(inner).contiguous()
        self._onednn = _is_for_onednn(weight.device)
        if self._onednn and reorder:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, x: Tensor, gelu: bool = False) -> Tensor:
        """``(rows, outputs)`` of ``(rows, inputs)``."""
        if self._onednn and len(x) == 1:
            # oneDNN sums a single row in another order; this way an item has the same bits in every batch.
            return self(x.expand(2, -1), gelu)[:1]
        x = x.to(self._inner)
        if self._onednn:
            activation = ("gelu", [], "none") if gelu else ("none", [], "")
            result = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *activation)
        else:
            result = functional.linear(x, self.weight, self.bias)
            result = functional.gelu(result) if gelu else result
        return result.to(self._dtype)


def _is_for_onednn(device: torch.device) -> bool:
    capable = torch.backends.cpu.get_cpu_capability().startswith("AVX") and torch.backends.mkldnn.is_available()
    return device.type == "cpu" and capable


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
