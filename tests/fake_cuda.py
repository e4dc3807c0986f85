"""A GPU without a GPU: tensors whose device is "cuda:0", whose numbers the CPU computes.

What a real one refuses is refused here: operations on tensors of both devices, and NumPy arrays of its tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
# What may have tensors of both.
_OF_BOTH = {aten.copy_.default, aten._to_copy.default, aten._pack_padded_sequence.default}
_INDEXING = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}


class OnGpu(Tensor):
    """A tensor of the fake GPU; `held` has its numbers."""

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        return Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=CUDA
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"OnGpu({self.held})"

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


class FakeGpu(TorchDispatchMode):
    """Makes new tensors where they are asked for on the GPU."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


@contextlib.contextmanager
def fake_gpu() -> Iterator[None]:
    """A block without gradients in which ``tensor.to(CUDA)`` and ``device=CUDA`` work."""
    # As PyTorch's own fake tensors do.
    torch._C._ensureCUDADeviceGuardSet()
    torch._C._set_only_lift_cpu_tensors(True)
    # A module's tensors cannot become fake ones, but they can be replaced.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with mock.patch("torch.cuda._lazy_init"), torch.no_grad(), FakeGpu():
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        torch._C._set_only_lift_cpu_tensors(False)


def _run(op: Any, args: Any, kwargs: Any) -> Any:
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    device = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    _refuse_both(op, args, given)
    if op is aten._fused_sdp_choice.default:
        return 0  # attention in plain operations
    held = tree_map(lambda leaf: leaf.held if isinstance(leaf, OnGpu) else leaf, (args, kwargs))
    if device is not None:
        held[1]["device"] = torch.device("cpu")
    if op is aten.cudnn_batch_norm.default:
        results = *aten.native_batch_norm.default(*held[0]), torch.empty(0)
    else:
        results = op(*held[0], **held[1])
    here = device.type == "cuda" if device is not None else any(isinstance(leaf, OnGpu) for leaf in given)
    # An operation in place gives its own argument back.
    owners = {id(leaf.held): leaf for leaf in given if isinstance(leaf, OnGpu)}

    def placed(leaf: Any) -> Any:
        if not here or not isinstance(leaf, Tensor):
            return leaf
        return owners[id(leaf)] if id(leaf) in owners else OnGpu(leaf)

    if op is aten._pack_padded_sequence.default:
        return placed(results[0]), results[1]  # how many of each step stays on the CPU
    return tree_map(placed, results)


def _refuse_both(op: Any, args: Any, given: list[Tensor]) -> None:
    there = [leaf for leaf in given if not isinstance(leaf, OnGpu) and leaf.ndim]
    if not there or len(there) == len(given) or op in _OF_BOTH or (op in _INDEXING and isinstance(args[0], OnGpu)):
        return
    if any(isinstance(leaf, OnGpu) for leaf in given):
        raise RuntimeError(f"Expected all tensors to be on the same device, {op} has cuda:0 and cpu")
