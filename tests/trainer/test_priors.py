"""What a checkpoint says of the class proportions that its network was trained for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_loader.resp_data_loader import RespDataLoader
from data_loader.sampling import BALANCE
from model.detail_losses import FineCrossEntropy
from model.loss import CrossEntropy
from tests.tiny import Tiny
from trainer.priors import draws_of_items, training_priors

WEIGHTS = [0.5, 3.0, 1.0, 0.2, 2.0]


def loader(data_dir, level=2, **options):
    common = {"batch_size": 8, "task": 2, "level": level, "input_dir": "processed_stft", "normalize": False}
    return RespDataLoader(str(data_dir), **common, **options)


@pytest.mark.parametrize("level, details", [(2, None), (1, "fine")])
@pytest.mark.parametrize("balance", BALANCE)
def test_items_are_expected_as_often_as_they_are_drawn(tiny_data, balance, level, details):
    resp = loader(tiny_data, level, details=details, balance=balance)
    drawn = np.zeros(len(resp.dataset))
    for epoch in range(1600):
        resp.set_epoch(epoch)
        drawn += np.bincount(list(resp.sampler), minlength=len(drawn))
    expected = draws_of_items(resp)
    np.testing.assert_allclose(drawn[resp.train_indices] / drawn.sum(), expected / expected.sum(), atol=0.008)


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("balance", BALANCE)
def test_a_network_that_learns_nothing_of_the_items_learns_q(tiny_data, balance, weight):
    """Of all constant probabilities, q has the smallest loss over what is drawn."""
    resp = loader(tiny_data, balance=balance)
    criterion = CrossEntropy(weight)
    found = training_priors(resp, criterion, Tiny(5))
    assert found["pi"] == pytest.approx(resp.class_counts() / len(resp.train_indices))
    labels, draws = torch.from_numpy(resp.dataset.labels), torch.from_numpy(draws_of_items(resp))
    times = (1000 * draws / draws.min()).round().long()
    target = labels[resp.train_indices].repeat_interleave(times)
    logits = torch.tensor(found["q"]).clamp_min(1e-30).log().requires_grad_()
    criterion(logits.expand(len(target), -1), target).backward()
    assert logits.grad.abs().max() < 2e-4


def test_a_loss_of_finer_classes_weighs_by_these(tiny_data):
    resp = loader(tiny_data, level=1, details="fine")
    found = training_priors(resp, FineCrossEntropy(WEIGHTS), Tiny(3))
    fine = np.bincount(resp.dataset.balance_labels[resp.train_indices], minlength=5) * np.array(WEIGHTS)
    assert found["q"] == pytest.approx(np.array([fine[0], fine[1], fine[2:].sum()]) / fine.sum())


def test_a_model_that_is_fitted_at_once_and_other_data_have_none(tiny_data, monkeypatch):
    resp = loader(tiny_data)
    model = Tiny(5)
    model.fits_at_once = True
    assert training_priors(resp, CrossEntropy(), model) is None
    monkeypatch.setattr(resp.dataset, "subject", resp.dataset.subject.__class__("esc50", "plain", "groups"))
    assert training_priors(resp, CrossEntropy(), Tiny(5)) is None
