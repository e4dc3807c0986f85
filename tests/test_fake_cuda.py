"""What computes on a GPU finds all that it needs there, and gives what the CPU gives; without a GPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from base.base_model import Detailed
from data_loader.augment import Augmentation, place
from data_loader.frontend import Frontend, InputSpec
from model import architectures, losses
from tests.fake_cuda import CUDA, fake_gpu
from trainer.mixup import Mixup

PICTURE = (2, 1, 64, 96)
MARKED = (2, 4, 64, 96)
WAVE = (2, 1024)
MODELS = {
    "ASTModel": ({"model_size": "tiny224", "input_fdim": 64, "input_tdim": 96, "weights": None}, (2, 96, 64)),
    "AudioClassifier": ({"indim": 1}, PICTURE),
    "CRNN": ({}, PICTURE),
    "EventNet": ({}, MARKED),
    "FineEventNet": ({}, MARKED),
    "GRU": ({}, WAVE),
    "LSTM": ({}, WAVE),
    "LightCNN": ({"padded": True, "input_shape": (1, 64, 96)}, PICTURE),
    "MobileNetAS": ({"weights": None}, PICTURE),
    "RawCNN1d": ({"samples": 1024}, WAVE),
    "RecordingNet": ({"body": "resnet", "weights": None}, MARKED),
    "ResNet18": ({"pretrained": False}, PICTURE),
    "SRN": ({}, (2, 20)),
}
# Those of cuDNN, which no fake has.
RECURRENT = ("CRNN", "GRU", "LSTM")


def make(name):
    args, shape = MODELS[name]
    torch.manual_seed(0)
    model = architectures[name](label_dim=2, **args)
    x = torch.randn(shape)
    if shape == MARKED:
        x[:, 3] = 0.0
        x[0, 3, :, :70] = x[1, 3, :, :30] = 1.0
    return model, x


@pytest.mark.parametrize("name", sorted(MODELS.keys() - RECURRENT))
@pytest.mark.parametrize("training", [True, False])
def test_a_model_gives_on_a_gpu_what_it_gives_on_the_cpu(name, training):
    model, x = make(name)
    model.train(training)
    with fake_gpu():
        there = copy.deepcopy(model).to(CUDA, memory_format=torch.channels_last)
        torch.manual_seed(1)
        outputs = there(x.to(CUDA))
        outputs = outputs if isinstance(outputs, Detailed) else (outputs,)
        assert {output.device for output in outputs} == {CUDA}
        outputs = [output.cpu() for output in outputs]
    torch.manual_seed(1)
    expected = model(x)
    expected = expected if isinstance(expected, Detailed) else (expected,)
    for output, own in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, own.detach(), atol=1e-4, rtol=1e-4)


def test_what_is_heard_in_frames_has_the_same_gradient_in_each_run(monkeypatch):
    # On a GPU, that of interpolate is added up in any order: only what learns nothing may go through it.
    model, x = make("RecordingNet")
    interpolate, grown = functional.interpolate, []
    monkeypatch.setattr(functional, "interpolate", lambda x, **kwargs: grown.append(x) or interpolate(x, **kwargs))
    with fake_gpu():
        model.to(CUDA)(x.to(CUDA))
        (steps,) = (image.cpu()[0] for image in grown)
    assert torch.equal(steps, torch.eye(len(steps)))


class Noted(nn.Module):
    """Takes the place of a recurrent net: notes what it would compute in."""

    def forward(self, steps):
        self.dtype = torch.float16 if torch.is_autocast_enabled("cuda") else steps.data.dtype
        state = torch.zeros(2, 2, 64, device=CUDA)
        return None, (state, state) if self.is_lstm else state


@pytest.fixture
def cuda_autocast(request):
    """Autocast for CUDA as on a machine with one."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", request.param)
    yield request.param
    torch.set_autocast_enabled("cuda", False)
    torch.clear_autocast_cache()


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("cuda_autocast", [torch.bfloat16, torch.float16], indirect=True)
def test_a_recurrent_net_in_bf16_is_not_computed_in_fp16(name, cuda_autocast):
    # cuDNN takes fp16 under any autocast: AutocastRNN.cpp. Without a scaler, its small gradients are 0.
    model, x = make(name)
    with fake_gpu():
        model.to(CUDA)
        model.recurrence, model.classifier = Noted(), nn.Identity()
        model.recurrence.is_lstm = name == "LSTM"
        model(x.to(CUDA))
    assert model.recurrence.dtype == (torch.float32 if cuda_autocast == torch.bfloat16 else torch.float16)


@pytest.mark.parametrize(
    ("name", "args", "details"),
    [
        ("cross_entropy", {"weight": [0.2, 0.8], "label_smoothing": 0.1}, None),
        ("focal", {"weight": [0.2, 0.8]}, None),
        ("fine_cross_entropy", {"weight": [1.0] * 7}, torch.tensor([3, 0])),
        ("frame_supervised", {"positive_weight": [1.0, 2.0, 3.0]}, torch.rand(2, 50, 3) - 0.2),
    ],
)
def test_a_loss_of_mixtures_finds_its_weights_on_the_gpu(name, args, details):
    criterion, output, target = losses[name](**args), torch.randn(2, 2), torch.tensor([1, 0])
    known = [target] if details is None else [target, details]
    extra = [] if details is None else [torch.randn(2, 7) if name == "fine_cross_entropy" else torch.randn(2, 20, 3)]

    def loss(device):
        torch.manual_seed(0)
        mix = Mixup(1.0, 0.2).draw(2, device)
        there = copy.deepcopy(criterion).to(device)
        outputs = [tensor.to(device) for tensor in (output, *extra)]
        return mix.loss(lambda t, *d: there(outputs[0], t, *outputs[1:], *d), *(each.to(device) for each in known))

    with fake_gpu():
        there = loss(CUDA)
        assert there.device == CUDA
        there = there.cpu()
    torch.testing.assert_close(there, loss(torch.device("cpu")))


def test_all_of_an_augmentation_happens_on_the_gpu():
    augmentation = Augmentation(
        gain_db=6, noise_db=20, shift=0.5, time_masks=2, freq_masks=2, level=0.1, roll_bands=2, edge_jitter=0.1
    )
    lengths = torch.tensor([1000, 300])
    with fake_gpu():
        waveforms = augmentation.waveform(torch.randn(2, 1000, device=CUDA), lengths.to(CUDA))
        placed, ends = place(waveforms, lengths.to(CUDA), 500)
        marked = augmentation.marked(torch.rand(MARKED, device=CUDA))
        assert {tensor.device for tensor in (waveforms, placed, ends, marked)} == {CUDA}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [1, 2])
def test_features_are_computed_in_the_step_on_the_gpu(training, channels):
    spec = InputSpec("mel", {"duration": 0.1, "n_mels": 8}, rate=8000, duration=0.1, channels=channels, mean=-50.0)
    augmentation = Augmentation(gain_db=6, shift=0.5, place=True, time_masks=1)
    frontend = Frontend(spec, augmentation).train(training)
    waveforms = torch.randn(2, 1000) if channels == 1 else torch.randn(2, channels, 1000)
    waveforms[1, ..., 500:] = 0.0
    lengths = torch.tensor([1000, 500])
    with fake_gpu():
        features = frontend.to(CUDA)(waveforms.to(CUDA), lengths.to(CUDA))
        assert features.device == CUDA
        features = features.cpu()
    if not training:
        torch.testing.assert_close(features, frontend(waveforms, lengths))
