"""Features computed in the step."""

from __future__ import annotations

import pytest
import torch

from data_loader.augment import Augmentation
from data_loader.features import methods
from data_loader.frontend import Frontend, InputSpec
from utils.errors import UserError

RATE = 8000
AUGMENTATION = Augmentation(gain_db=6, noise_db=20, shift=0.5, time_masks=1, freq_masks=1)


@pytest.fixture
def batch():
    """Waveforms of very different lengths, zero behind them."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(400, 5 * RATE, (24,), generator=generator)
    waveforms = 0.01 * torch.randn(24, int(lengths.max()) + 100, generator=generator)
    return waveforms * (torch.arange(waveforms.shape[1]) < lengths[:, None]), lengths


@pytest.fixture
def threads():
    """torch.set_num_threads; the number is put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def frontend(method="stft", augmentation=AUGMENTATION):
    feature = methods[method]
    shape = tuple(feature(torch.zeros(RATE), RATE, **feature.defaults).shape)
    return Frontend(InputSpec(method, feature.defaults, shape=shape, rate=RATE), augmentation)


@pytest.mark.parametrize("method", ["stft", "mel", "ast", "wavelet"])
def test_an_item_gets_the_feature_that_it_has_alone(batch, method):
    waveforms, lengths = batch
    computed = frontend(method).eval()(waveforms, lengths)
    feature = methods[method]
    for waveform, length, found in zip(waveforms, lengths.tolist(), computed, strict=True):
        alone = feature(waveform[:length], RATE, **feature.defaults)
        torch.testing.assert_close(found, alone, atol=1e-3 * float(alone.abs().max()), rtol=0)


def test_the_same_seed_gives_the_same_augmented_features_whatever_the_number_of_threads(batch, threads):
    module = frontend().train()
    results = []
    for n_threads in (1, 2, 5):
        threads(n_threads)
        torch.manual_seed(3)
        results.append(module(*batch))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], module(*batch))


def test_each_item_is_augmented_in_its_own_way():
    waveform = 0.01 * torch.randn(1, RATE, generator=torch.Generator().manual_seed(0))
    computed = frontend(augmentation=Augmentation(noise_db=10)).train()(
        waveform.repeat(40, 1), torch.full((40,), RATE)
    )
    assert len(computed.flatten(1).unique(dim=0)) == 40


def test_only_training_is_augmented_and_the_batch_is_left_as_it_was(batch):
    waveforms, lengths = batch
    before = waveforms.clone()
    module = frontend()
    plain = frontend(augmentation=None).train()(waveforms, lengths)
    assert torch.equal(module.eval()(waveforms, lengths), plain)
    assert not torch.equal(module.train()(waveforms, lengths), plain)
    assert torch.equal(waveforms, before)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"method": "nothing"}, "input.method: there is no feature method"),
        ({"params": {"colour": 1}}, "input.params.colour: is unknown"),
        ({"mean": "x"}, "input.mean"),
        ({"std": 0.0}, "the deviation 0.0"),
        ({"std": float("nan")}, "input.std"),
        ({"rate": None}, "input.rate: is None"),
        ({"duration": -1.0}, "the duration -1.0"),
        ({"shape": ["a"]}, "input.shape"),
        ({"method": None, "input_dir": "processed_mel"}, "input.method: is missing"),
        ({"input_dir": "processed_mel", "duration": 1.0, "rate": None}, "input.duration: is 1.0, of stored features"),
        ({"colour": 1}, "input.colour: is unknown"),
    ],
)
def test_a_description_that_makes_no_sense_is_an_error(changes, what):
    spec = InputSpec("mel", methods["mel"].defaults, None, (1, 64, 801), rate=8000)
    assert InputSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(UserError, match=what):
        InputSpec.from_dict(spec.to_dict() | changes)
