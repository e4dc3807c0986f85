"""Whether what a checkpoint holds is of the kind that a run can go on with, before anything is taken from it."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def misfit(saved: Any, own: Any, where: str = "") -> str | None:
    """Where a saved value is of another kind than the run's own one, as a clause; None where all are alike.

    Numbers are alike, tensors those of one shape and dtype, lists those of one length, objects those that have all of
    the own one's keys. An own None, empty list or object says nothing of what may be saved in its place.
    """
    if own is None or (saved is None and isinstance(own, str)):
        return None
    if isinstance(own, Mapping):
        if not isinstance(saved, Mapping):
            return f"{where} is {_kind(saved)}"
        if missing := sorted(own.keys() - saved.keys(), key=str):
            return f"{where} has no {missing[0]}".lstrip()
        return _first(misfit(saved[key], own[key], f"{where}.{key}".lstrip(".")) for key in own)
    if isinstance(own, Tensor):
        alike = isinstance(saved, Tensor) and (saved.shape, saved.dtype) == (own.shape, own.dtype)
        return None if alike and saved.layout == own.layout else f"{where} is {_kind(saved)}"
    if isinstance(own, (list, tuple)):
        if not isinstance(saved, (list, tuple)) or (own and len(saved) != len(own)):
            return f"{where} is {_kind(saved)}"
        return _first(misfit(item, own[n], f"{where}[{n}]") for n, item in enumerate(saved) if own)
    numbers = (int, float)
    alike = type(saved) in numbers if type(own) in numbers else type(saved) is type(own)
    return None if alike else f"{where} is {_kind(saved)}"


def optimizer_misfit(saved: Any, optimizer: torch.optim.Optimizer) -> str | None:
    """Why an optimizer cannot take a saved state, as a clause; None where it can.

    What the optimizer keeps of a parameter is seen on a small one of the same number of axes.
    """
    if problem := misfit(saved, optimizer.state_dict(), "optimizer"):
        return problem
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, state in saved["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(state, Mapping):
            return f"optimizer.state has the entry {number!r}"
        if parameters[number] in optimizer.state:
            # Adagrad keeps something from the beginning: it was compared above.
            continue
        shape = parameters[number].shape
        expected = _state_of_a_small_parameter(optimizer, parameters[number])
        if state.keys() != expected.keys():
            return f"optimizer.state.{number} holds {', '.join(map(str, state)) or 'nothing'}"
        for key, own in expected.items():
            if isinstance(own, Tensor) and own.ndim:
                # An axis of two is one of the parameter's, an axis of one stays so.
                own = own.new_empty([size if two == 2 else 1 for two, size in zip(own.shape, shape, strict=True)])
            if problem := misfit(state[key], own, f"optimizer.state.{number}.{key}"):
                return problem
    return None


def _state_of_a_small_parameter(optimizer: torch.optim.Optimizer, like: Tensor) -> dict[str, Any]:
    parameter = torch.nn.Parameter(like.new_zeros([2] * like.ndim))
    parameter.grad = torch.zeros_like(parameter)
    trial = copy.copy(optimizer)
    trial.state = defaultdict(dict)
    trial.param_groups = [{**optimizer.param_groups[0], "params": [parameter]}]
    trial.step()
    return trial.state[parameter]


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}".replace("torch.", "")
    return f"a list of {len(value)}" if isinstance(value, (list, tuple)) else f"{value!r}"[:80]
