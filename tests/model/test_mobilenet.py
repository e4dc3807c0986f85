from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torchvision.models import mobilenetv3
from torchvision.ops.misc import SqueezeExcitation

from data_loader.features import methods
from model import mobilenet_weights
from model.mobilenet import WIDTHS, MobileNetAS, divisible
from model.mobilenet_weights import PUBLISHED, Published
from tests.tiny import ROOT
from utils.errors import UserError
from utils.files import file_digest

RATE = 32000
SECONDS = 10
# Indices of AudioSet's class_labels_indices.csv.
TICK, TICK_TOCK, CLICKING, SILENCE, SINE_WAVE, NOISE, STATIC, WHITE_NOISE, PINK_NOISE = (
    *(407, 408, 491, 500, 501),
    *(513, 515, 520, 521),
)


@pytest.fixture(scope="module")
def weights():
    """The published file of mn04_as."""
    path = ROOT.parent / "shared" / "weights" / PUBLISHED["mn04_as"].name
    if not path.is_file():
        pytest.skip("the weights of mn04_as are not here")
    return path


@pytest.fixture(scope="module")
def like_published(tmp_path_factory):
    """A state dict as EfficientAT publishes mn04_as, with random numbers."""
    torch.manual_seed(0)
    state = MobileNetAS(527, weights=None).state_dict()
    names = {name: name.replace(".fc", ".conc_se_layers.0.fc") for name in state}
    state = {names[name]: value.clone() for name, value in state.items()}
    path = tmp_path_factory.mktemp("weights") / "mn04.pt"
    torch.save(state, path)
    return path, state


@pytest.fixture(scope="module")
def signals():
    """Ten seconds each ``(samples,)`` at 32 kHz."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(SECONDS * RATE) / RATE
    noise = torch.randn(len(time), generator=generator)
    spectrum = torch.fft.rfft(noise)
    pink = torch.fft.irfft(spectrum / torch.arange(1, len(spectrum) + 1).sqrt(), len(time))
    burst = torch.rand(960, generator=generator) * 2 - 1
    burst *= torch.exp(-torch.arange(960) / 160)
    clicks = 0.001 * torch.randn(len(time), generator=generator)
    for start in range(0, len(time), RATE):
        clicks[start : start + 960] += 0.5 * burst
    return {
        "440 Hz": 0.5 * torch.sin(2 * torch.pi * 440 * time),
        "1 kHz": 0.5 * torch.sin(2 * torch.pi * 1000 * time),
        "white noise": 0.1 * noise,
        "pink noise": 0.1 * pink / pink.std(),
        "clicks": clicks,
        "silence": torch.zeros_like(time),
    }


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def heard(model, waveform):
    """AudioSet classes by falling probability."""
    with torch.inference_mode():
        return model(methods["mel32k"](waveform, RATE)[None])[0].argsort(descending=True).tolist()


def test_published_weights_hear_a_sine_noise_clicks_and_silence(weights, signals):
    model = MobileNetAS(527, weights=str(weights)).eval()
    top = {name: heard(model, waveform) for name, waveform in signals.items()}
    assert (top["440 Hz"][0], top["1 kHz"][0]) == (SINE_WAVE, SINE_WAVE)
    assert set(top["white noise"][:4]) == {NOISE, STATIC, WHITE_NOISE, PINK_NOISE}
    assert top["pink noise"][0] == PINK_NOISE
    assert set(top["clicks"][:3]) == {TICK, TICK_TOCK, CLICKING}
    assert top["silence"][0] == SILENCE


def test_published_weights_give_the_same_outputs_on_every_load(weights, signals):
    x = methods["mel32k"](signals["1 kHz"], RATE)[None]
    with torch.inference_mode():
        first, second = (MobileNetAS(527, weights=str(weights)).eval()(x) for _ in range(2))
    assert torch.equal(first, second)


def test_every_published_tensor_is_used(weights):
    published = torch.load(weights, weights_only=True, map_location="cpu")
    own = MobileNetAS(527, weights=str(weights)).state_dict()
    assert len(own) == len(published)
    assert all(torch.equal(*pair) for pair in zip(own.values(), published.values(), strict=True))


def test_published_file_is_the_one_whose_checksum_we_know(weights):
    assert file_digest(weights) == PUBLISHED["mn04_as"].sha256


@pytest.mark.parametrize("size, parameters", [("mn04_as", 983_599), ("mn10_as", 4_876_831)])
def test_network_is_torchvisions_with_a_sigmoid_in_its_squeeze(size, parameters):
    torch.manual_seed(0)
    model = MobileNetAS(527, model_size=size, weights=None).eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    blocks, last = mobilenetv3._mobilenet_v3_conf("mobilenet_v3_large", width_mult=WIDTHS[size])
    squeeze = functools.partial(SqueezeExcitation, scale_activation=nn.Sigmoid)
    block = functools.partial(mobilenetv3.InvertedResidual, se_layer=squeeze)
    reference = mobilenetv3.MobileNetV3(blocks, last, num_classes=527, block=block).eval()
    reference.features[0][0] = nn.Conv2d(1, divisible(16 * WIDTHS[size]), 3, 2, 1, bias=False)
    for norm in norms(model):
        norm.running_var.fill_(0.1)  # so that the signal lives through the layers
    state = zip(reference.state_dict().items(), model.state_dict().values(), strict=True)
    reference.load_state_dict({name: value.reshape(its.shape) for (name, its), value in state})
    x = torch.randn(2, 1, 64, 96, dtype=torch.float64)
    expected = reference.double()(x)
    assert expected.std() > 1e-4
    torch.testing.assert_close(model.double()(x), expected)
    assert [(n.eps, n.momentum) for n in norms(model)] == [(n.eps, n.momentum) for n in norms(reference)]


@pytest.mark.parametrize("indim", [1, 3])
def test_forward_and_backward_reach_every_parameter(indim):
    torch.manual_seed(0)
    model = MobileNetAS(label_dim=3, indim=indim, weights=None)
    logits = model(torch.randn(4, indim, 128, 100))
    assert logits.shape == (4, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_channels_last_changes_nothing():
    torch.manual_seed(0)
    model = MobileNetAS(3, indim=2, weights=None).eval()
    x = torch.randn(2, 2, 128, 100)
    expected = model(x)
    model = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), expected)


def test_equal_channels_give_what_one_gives(like_published):
    path, _ = like_published
    one, three = (MobileNetAS(527, indim=indim, weights=str(path)).eval() for indim in (1, 3))
    x = torch.randn(2, 1, 64, 64)
    first = [model.features[0][0] for model in (one, three)]
    torch.testing.assert_close(first[1](x.expand(-1, 3, -1, -1)), first[0](x), rtol=1e-4, atol=1e-5)


def test_another_number_of_classes_gets_a_new_last_layer_and_keeps_all_else(like_published):
    path, published = like_published
    own = MobileNetAS(3, weights=str(path)).state_dict()
    for (name, value), theirs in zip(own.items(), published.values(), strict=True):
        if name.startswith("classifier.5."):
            assert len(value) == 3
        else:
            assert torch.equal(value, theirs)


def test_weights_of_the_other_size_are_refused(like_published):
    with pytest.raises(UserError, match=r"features\.0\.0\.weight \(8, 1, 3, 3\) instead of \(16, 1, 3, 3\)"):
        MobileNetAS(3, model_size="mn10_as", weights=str(like_published[0]))


def test_missing_and_unexpected_tensors_are_listed(tmp_path, like_published):
    state = dict(like_published[1])
    state["features.17.0.weight"] = state.pop("features.16.0.weight")
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(UserError) as caught:
        MobileNetAS(3, weights=str(tmp_path / "bad.pt"))
    assert "missing: features.16.0.weight" in str(caught.value)
    assert "unexpected: features.17.0.weight" in str(caught.value)


def test_weights_that_cannot_be_fetched_are_named_with_address_and_place(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(mobilenet_weights, "_SHARED", tmp_path / "none")

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError) as caught:
        MobileNetAS(3, model_size="mn10_as")
    message = str(caught.value)
    assert "arch.args.weights: mn10_as_mAP_471.pt cannot be fetched (no network)" in message
    assert PUBLISHED["mn10_as"].url in message
    assert str(tmp_path / "checkpoints" / "mn10_as_mAP_471.pt") in message


@pytest.mark.parametrize("place", ["cache/checkpoints", "shared"])
def test_a_file_in_the_cache_or_shared_is_taken_and_a_damaged_refused(place, tmp_path, monkeypatch, like_published):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.setattr(mobilenet_weights, "_SHARED", tmp_path / "shared")
    file = tmp_path / place / "mine.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(like_published[0].read_bytes())
    published = Published("mine.pt", file_digest(file))
    monkeypatch.setitem(PUBLISHED, "mn04_as", published)
    assert MobileNetAS(527)(torch.zeros(2, 1, 32, 32)).shape == (2, 527)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=f"{file}: is damaged.*{published.url}"):
        MobileNetAS(527)


def test_items_of_other_channels_or_axes_are_refused():
    args = {"label_dim": 3, "indim": 1, "dropout": 0.2}
    assert MobileNetAS.input_problem(args, (1, 128, 1000)) is None
    assert "indim 1" in MobileNetAS.input_problem(args, (3, 224, 224))
    assert "(768, 128)" in MobileNetAS.input_problem(args, (768, 128))
    assert "at least 32" in MobileNetAS.input_problem(args, (1, 128, 31))


@pytest.mark.parametrize("dropout", [2.0, -1, float("nan")])
def test_a_dropout_that_is_no_share_is_refused(dropout):
    args = {"label_dim": 3, "indim": 1, "dropout": dropout}
    assert MobileNetAS.input_problem(args, (1, 128, 1000)) == f"dropout is {dropout}, expected 0 to 1"
    with pytest.raises(UserError, match=r"arch\.args: dropout is"):
        MobileNetAS(3, weights=None, dropout=dropout)
