"""The network for recordings that hears what is in each frame."""

from __future__ import annotations

import copy

import pytest
import torch

from model.recording_net import RecordingNet
from tests.fake_cuda import CUDA, fake_gpu
from utils.errors import UserError


def recordings(*frames, size=384):
    x = torch.rand(len(frames), 4, 64, size, generator=torch.Generator().manual_seed(0))
    x[:, 3] = 0
    for item, count in zip(x, frames, strict=True):
        item[:3, :, count:] = 4 / 14
        item[3, :, :count] = 1
    return x


@pytest.fixture(params=["resnet", "mn04_as"])
def model(request):
    torch.manual_seed(0)
    model = RecordingNet(3, body=request.param, weights=None)
    with torch.no_grad():
        model(recordings(300, 200))
    return model


def test_training_gives_classes_and_frames_and_evaluation_classes(model):
    logits, frames = model(recordings(300, 200))
    assert (logits.shape, frames.shape) == ((2, 3), (2, 384, 3))
    assert model.eval()(recordings(300, 200)).shape == (2, 3)


def test_a_recording_gives_the_same_whatever_it_is_batched_with(model):
    model.eval()
    x = recordings(300, 41, 200)
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(item[None]) for item in x])
        shorter = model(x[1:2, ..., :64])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shorter, alone[1:2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("device", ["cpu", "a GPU"])
def test_in_training_no_batch_counts_what_lies_behind_its_longest_recording(model, device):
    model.dropout.p = 0.0
    longer = copy.deepcopy(model)
    x = recordings(300, 200, size=1232)
    with torch.no_grad():
        logits, frames = model(x[..., :320])
    if device == "cpu":
        with torch.no_grad():
            found = [*longer(x), *longer.buffers()]
    else:
        with fake_gpu():
            found = [tensor.held for tensor in (*longer.to(CUDA)(x.to(CUDA)), *longer.buffers())]
    found[1] = found[1][:, :320]
    torch.testing.assert_close(found, [logits, frames, *model.buffers()])


def test_what_lies_behind_the_end_does_not_count_beyond_the_last_step(model):
    model.eval()
    x = recordings(100)
    rubbish = x.clone()
    rubbish[:, :3, :, 128:] = 1.0
    assert torch.equal(model(x), model(rubbish))


def test_a_recording_of_a_few_frames_gives_finite_numbers(model):
    assert model.eval()(recordings(1)).isfinite().all()


def test_the_frames_learn_where_the_sound_is():
    torch.manual_seed(0)
    model = RecordingNet(2, frame_dim=1, body="resnet", weights=None)
    x = recordings(128, 128, 128, 128, size=128)
    x[:, :3] *= 0.1
    target = torch.zeros(4, 128, 1)
    for item, (start, end) in enumerate([(0, 32), (32, 64), (64, 96), (96, 128)]):
        x[item, :3, :, start:end] += 0.8
        target[item, start:end] = 1
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(12):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x).details, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    heard = model(x).details
    assert ((heard > 0) == (target > 0.5)).float().mean() > 0.85


@pytest.mark.parametrize(
    ("body", "frames_per_step", "steps"), [("mn04_as", 8, 48), ("mn04_as", 32, 12), ("resnet", 4, 96)]
)
def test_steps_in_time_are_as_many_frames_apart_as_asked_for(body, frames_per_step, steps):
    model = RecordingNet(2, body=body, weights=None, frames_per_step=frames_per_step).eval()
    own = RecordingNet(2, body=body, weights=None).eval()
    x = recordings(384)
    assert model.body(x).shape == (1, model.body.channels, steps)
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in own.state_dict().items()
    }
    assert model(x).isfinite().all()


@pytest.mark.parametrize("frames_per_step", [0, 3, 64, -2])
def test_steps_that_a_body_cannot_have_are_refused(frames_per_step):
    with pytest.raises(UserError, match=f"frames_per_step: is {frames_per_step} .take one of 1, 2, 4, 8, 16, 32"):
        RecordingNet(2, body="mn04_as", weights=None, frames_per_step=frames_per_step)


def test_arguments_that_cannot_work_are_said_before_anything_is_built():
    args = {"indim": 4, "frame_dim": 3, "dropout": 0.2, "body": "resnet", "weights": None}
    assert RecordingNet.input_problem(args, (4, 64, 1232)) is None
    assert "(1, 224, 224)" in RecordingNet.input_problem(args, (1, 224, 224))
    for frame_dim in (5, 0, -1):
        problem = RecordingNet.input_problem(args | {"frame_dim": frame_dim}, (4, 64, 1232))
        assert problem == f"RecordingNet hears 3 kinds of sounds in a frame, frame_dim is {frame_dim}"
    assert RecordingNet.input_problem(args | {"dropout": 2.0}, (4, 64, 1232)) == "dropout is 2.0, expected 0 to 1"
    with pytest.raises(UserError, match=r"arch\.args: dropout is -1"):
        RecordingNet(3, body="resnet", weights=None, dropout=-1)
