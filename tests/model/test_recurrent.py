"""Recurrent nets over sequences of any length."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from data_loader.batching import Batch
from data_loader.frontend import Frontend, InputSpec
from model import architectures
from model.srn import SimpleRecurrence
from trainer.inference import model_output

NETS = ("SRN", "LSTM", "GRU")
LENGTHS = torch.tensor([3, 9, 1, 6])


def net_of(name, input_dim=4, hidden_dim=7):
    torch.manual_seed(0)
    return architectures[name](5, input_dim, hidden_dim)


def sequences(steps=9, padding=0.0):
    """Four sequences ``(4, 4, steps)`` of `LENGTHS`, with `padding` behind their ends."""
    x = torch.randn(4, 4, 9, generator=torch.Generator().manual_seed(1))
    x = nn.functional.pad(x, (0, steps - 9))
    for item, length in zip(x, LENGTHS, strict=True):
        item[:, length:] = padding
    return x


def reference(own: SimpleRecurrence) -> nn.RNN:
    """torch.nn.RNN with the weights of ours."""
    rnn = nn.RNN(own.of_input.in_features, own.of_input.out_features, batch_first=True)
    with torch.no_grad():
        rnn.weight_ih_l0.copy_(own.of_input.weight)
        rnn.weight_hh_l0.copy_(own.of_state.weight)
        rnn.bias_ih_l0.copy_(own.of_input.bias)
        rnn.bias_hh_l0.zero_()
    return rnn


def test_the_cell_written_out_is_that_of_torch_in_states_and_gradients():
    torch.manual_seed(0)
    own = SimpleRecurrence(6, 16)
    rnn = reference(own)
    steps = torch.randn(8, 40, 6)
    state, (_, last) = own(steps, torch.full((8,), 40)), rnn(steps)
    torch.testing.assert_close(state, last[-1], rtol=1e-5, atol=1e-6)
    state.square().sum().backward()
    last.square().sum().backward()
    for mine, its in (
        (own.of_input.weight, rnn.weight_ih_l0),
        (own.of_state.weight, rnn.weight_hh_l0),
        (own.of_input.bias, rnn.bias_ih_l0),
    ):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-5)


def test_the_cell_starts_with_weights_in_the_range_of_torch():
    own = SimpleRecurrence(6, 16)
    for parameter in own.parameters():
        assert 0.2 < float(parameter.detach().abs().max()) <= 0.25


@pytest.mark.parametrize("name", NETS)
def test_logits_depend_neither_on_the_padding_nor_on_the_others_of_a_batch(name):
    net = net_of(name)
    with torch.no_grad():
        together = net(sequences(), LENGTHS)
        torch.testing.assert_close(net(sequences(steps=30), LENGTHS), together)
        torch.testing.assert_close(net(sequences(padding=1e6), LENGTHS), together)
        for row, length in enumerate(LENGTHS):
            alone = net(sequences()[row : row + 1, :, :length])
            torch.testing.assert_close(alone[0], together[row], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_padding_gets_no_gradient(name):
    x = sequences().requires_grad_()
    net_of(name)(x, LENGTHS).square().sum().backward()
    counted = torch.arange(9) < LENGTHS[:, None]
    assert (x.grad.abs().sum(1) > 0).equal(counted)


@pytest.mark.parametrize("name", NETS)
def test_the_lengths_of_a_batch_reach_the_net(name):
    net, spec = net_of(name).eval(), InputSpec(None, shape=(4, -1), rate=1, channels=4)
    batch = Batch(sequences(padding=1e6), torch.zeros(4), torch.arange(4), LENGTHS)
    with torch.no_grad():
        found = model_output(net, Frontend(spec).eval(), batch, torch.device("cpu"))
        torch.testing.assert_close(found, net(sequences(), LENGTHS))


def test_a_waveform_cut_to_the_duration_counts_as_long_as_that():
    spec = InputSpec(None, shape=(5,), rate=1, duration=5.0)
    data, lengths = torch.randn(2, 9), torch.tensor([9, 3])
    inputs, left = Frontend(spec).eval().with_lengths(data, lengths)
    assert inputs.equal(data[:, :5])
    assert left.tolist() == [5, 3]


@pytest.mark.parametrize("name", NETS)
def test_waveforms_and_features_are_sequences_too(name):
    assert net_of(name, 1)(torch.randn(3, 50)).shape == (3, 5)
    assert net_of(name, 16)(torch.randn(3, 2, 8, 50)).shape == (3, 5)
    with torch.no_grad():
        features = torch.randn(3, 2, 8, 50)
        net = net_of(name, 16)
        torch.testing.assert_close(net(features), net(features.flatten(1, 2)))


@pytest.mark.parametrize("name", NETS)
def test_an_item_without_any_step_does_no_harm(name):
    assert net_of(name)(sequences(), torch.tensor([0, 9, 1, 6])).isfinite().all()


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_a_gated_net_begins_by_keeping_its_state(name):
    net = net_of(name, 4, 64)
    x = torch.zeros(2, 4, 20)
    x[0, :, 0] = 3.0
    with torch.no_grad():
        states = net.last_state(x.transpose(1, 2), torch.full((2,), 20))
        nn.init.constant_(net.recurrence.bias_ih_l0[64:128], 0.0)
        forgetful = net.last_state(x.transpose(1, 2), torch.full((2,), 20))
    assert (states[0] - states[1]).norm() > 10 * (forgetful[0] - forgetful[1]).norm()


@pytest.mark.parametrize("name", NETS)
def test_an_input_that_does_not_fit_is_said(name):
    net, args = architectures[name], {"label_dim": 19, "input_dim": 10, "hidden_dim": 32}
    assert net.input_problem(args, (10, -1)) is None
    assert net.input_problem(args, (2, 5, 100)) is None
    assert net.input_problem(args | {"input_dim": 1}, (-1,)) is None
    problem = net.input_problem(args, (1, 64, 100))
    assert problem == f"{name} takes input_dim = 10 numbers a step, the items (1, 64, 100) have 64"
    assert "hidden_dim = 0" in net.input_problem(args | {"hidden_dim": 0}, (10, -1))
