"""Features computed in the step."""

from __future__ import annotations

from dataclasses import replace

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


# A frame of mel is 10 ms, the duration 4 s.
DURATION = 4.0
FITTED = {"repeat": {"fit": "repeat", "duration": DURATION}, "pad": {"fit": "pad", "duration": DURATION}}


def lasting(method="mel", augmentation=None, mean=0.0, **params):
    """A frontend of items of 4 s."""
    params = methods[method].checked(params, "x")
    shape = tuple(methods[method](torch.zeros(RATE), RATE, **params).shape)
    spec = InputSpec(method, params, shape=shape, mean=mean, rate=RATE, duration=DURATION)
    return Frontend(spec, augmentation)


@pytest.mark.parametrize(("method", "params"), [("mel", FITTED["repeat"]), ("mel", FITTED["pad"]), ("stft", {})])
@pytest.mark.parametrize("training", [True, False])
def test_a_short_item_is_filled_up_with_zeros_that_count(batch, method, params, training):
    waveforms, lengths = batch
    module = lasting(method, **params).train(training)
    computed = module(waveforms, lengths)
    samples = round(DURATION * RATE)
    full = torch.nn.functional.pad(waveforms, (0, samples))[:, :samples]
    expected = torch.cat([methods[method](item[None], RATE, **module.spec.params) for item in full])
    torch.testing.assert_close(computed, expected, atol=1e-3 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("channels", [1, 2])
def test_what_lies_behind_an_item_is_not_its_sound(channels):
    waveforms, lengths = torch.full((2, channels, RATE), 1e6), torch.tensor([RATE // 2, RATE])
    waveforms[0, :, : RATE // 2] = waveforms[1] = 0.1
    before = waveforms.clone()
    # One channel has no axis of its own.
    computed = lasting(**FITTED["pad"]).eval()(waveforms.squeeze(1), lengths)
    assert torch.equal(waveforms, before)
    heard = (computed[:, 0].amax(dim=1) > -90).sum(dim=1)
    assert heard.tolist() == pytest.approx([50, 100], abs=3)


@pytest.mark.parametrize("fit", FITTED)
def test_training_at_a_random_place_hears_as_much_sound_as_evaluation(batch, fit):
    module = lasting(augmentation=Augmentation(place=True), **FITTED[fit])
    torch.manual_seed(0)
    placed, stay = ((module.train(training)(*batch)[:, 0].amax(dim=1) > -90) for training in (True, False))
    assert ((placed.sum(dim=1) - stay.sum(dim=1)).abs() <= 3).all()
    short = batch[1] < DURATION * RATE - RATE
    assert stay[:, 0].all()
    assert placed[short, 0].float().mean() < 0.5


def test_what_fills_up_an_item_is_silent_in_training_too(batch):
    noisy = lasting(augmentation=Augmentation(noise_db=10, shift=0.5, gain_db=6), **FITTED["repeat"])
    computed, plain = noisy.train()(*batch)[:, 0], noisy.eval()(*batch)[:, 0]
    assert not torch.equal(computed, plain)
    silent = plain.amax(dim=1) == -100
    assert silent.any()
    assert (computed.amax(dim=1)[silent] == -100).all()


def test_a_placed_sound_is_moved_in_the_circle_of_the_whole_duration():
    module = lasting(augmentation=Augmentation(place=True, shift=0.5), **FITTED["pad"]).train()
    torch.manual_seed(0)
    heard = module(0.1 * torch.randn(40, RATE), torch.full((40,), RATE))[:, 0].amax(dim=1) > -90
    # Its end stands at the start then, and its start at the end.
    assert (heard[:, 0] & heard[:, -1]).any()


def test_no_more_is_computed_at_once_than_a_cache_holds_whatever_fills_it_up(batch):
    module, sizes = lasting(), []
    feature = module._feature

    def compute(waveforms, *args, **params):
        sizes.append(waveforms.numel())
        return feature.compute(waveforms, *args, **params)

    module._feature = replace(feature, compute=compute, batch_size=32, batch_seconds=8.0)
    module(*batch)
    assert set(sizes) == {8 * RATE}
    assert len(sizes) == 12


def test_of_a_placed_waveform_the_zeros_behind_it_do_not_count_as_in_evaluation(batch):
    waveforms, lengths = batch
    samples = round(DURATION * RATE)
    module = Frontend(InputSpec(None, shape=(samples,), rate=RATE, duration=DURATION), Augmentation(place=True))
    placed, ends = module.train().with_lengths(waveforms, lengths)
    _, stay = module.eval().with_lengths(waveforms, lengths)
    assert torch.equal(stay, lengths.clamp(max=samples))
    heard = placed != 0
    assert ends.tolist() == [int(row.nonzero().max()) + 1 for row in heard]
    assert torch.equal(heard.sum(dim=1), stay)


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
