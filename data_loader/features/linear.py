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
        self.weight = weight.to(dtype).contiguous()
        self.bias = None if bias is None else bias.to(dtype).contiguous()
        self._onednn = _onednn_computes(self.weight)
        if self._onednn and reorder:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, x: Tensor, gelu: bool = False) -> Tensor:
        """``(rows, outputs)`` of ``(rows, inputs)``."""
        if self._onednn:
            if len(x) == 1:
                # oneDNN sums a single row in another order; this way an item has the same bits in every batch.
                return self(x.expand(2, -1), gelu)[:1]
            activation = ("gelu", [], "none") if gelu else ("none", [], "")
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *activation)
        result = functional.linear(x, self.weight, self.bias)
        return functional.gelu(result) if gelu else result


def _onednn_computes(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
