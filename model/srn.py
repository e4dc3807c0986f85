"""The simple recurrent network, written out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model import architectures
from model.recurrent import RecurrentClassifier


class SimpleRecurrence(nn.Module):
    """Elman's cell (Cognitive Science 14, 1990), step by step: ``h = tanh(W x + b + U h)``, from ``h = 0``.

    The same as `torch.nn.RNN` whose two biases sum to ``b``; weights are drawn as there.

    Args:
        input_dim: numbers a step.
        hidden_dim: numbers of the state.
    """

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.of_input = nn.Linear(input_dim, hidden_dim)
        self.of_state = nn.Linear(hidden_dim, hidden_dim, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_dim**-0.5), hidden_dim**-0.5)

    def forward(self, steps: Tensor, lengths: Tensor) -> Tensor:
        """States ``(batch, hidden_dim)`` after the last of `lengths` ``(batch,)`` of ``(batch, steps, input_dim)``."""
        driven = self.of_input(steps)
        state = torch.zeros_like(driven[:, 0])
        for step, of_input in enumerate(driven.unbind(1)):
            # Past its end, a sequence keeps its state.
            goes_on = (step < lengths).unsqueeze(1)
            state = torch.where(goes_on, torch.tanh(of_input + self.of_state(state)), state)
        return state


@architectures.register()
class SRN(RecurrentClassifier):
    """Simple recurrent network.

    Args:
        label_dim, input_dim, hidden_dim: see `RecurrentClassifier`.
    """

    def make_recurrence(self, input_dim: int, hidden_dim: int) -> nn.Module:
        return SimpleRecurrence(input_dim, hidden_dim)

    def last_state(self, steps: Tensor, lengths: Tensor) -> Tensor:
        return self.recurrence(steps, lengths)
