from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from model.resnet import ResNet18
from model.weights import without_weights
from utils.errors import UserError


@pytest.fixture(scope="module")
def imagenet() -> dict[str, torch.Tensor]:
    """A state dict as timm publishes it, 1000 classes, with random numbers."""
    torch.manual_seed(0)
    return timm.create_model("resnet18", pretrained=False).state_dict()


@pytest.mark.parametrize(("indim", "size"), [(1, (64, 64)), (3, (64, 64)), (4, (64, 192)), (4, (33, 32))])
def test_forward_and_backward_reach_every_parameter(indim, size):
    torch.manual_seed(0)
    model = ResNet18(label_dim=5, indim=indim, pretrained=False)
    logits = model(torch.randn(2, indim, *size))
    assert logits.shape == (2, 5)
    assert (logits < 0).any()
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 4])).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_one_channel_gives_what_timm_gives_for_a_grey_picture(tmp_path, imagenet, suffix):
    path = tmp_path / f"resnet18{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(imagenet, path)
    model = ResNet18(label_dim=3, weights=str(path)).eval()
    reference = timm.create_model("resnet18", pretrained=False, num_classes=0).eval()
    reference.load_state_dict({k: v for k, v in imagenet.items() if not k.startswith("fc.")})
    x = torch.randn(2, 1, 64, 64)
    features = model.network.forward_head(model.network.forward_features(x), pre_logits=True)
    torch.testing.assert_close(features, reference(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    assert model(x).shape == (2, 3)


@pytest.mark.parametrize("indim", [1, 2, 3, 4])
def test_first_convolution_is_adapted_as_timm_does(tmp_path, imagenet, indim):
    path = tmp_path / "resnet18.safetensors"
    save_file(imagenet, path)
    overlay = {"file": str(path)}
    reference = timm.create_model(
        "resnet18", pretrained=True, pretrained_cfg_overlay=overlay, in_chans=indim, num_classes=3
    )
    model = ResNet18(label_dim=3, indim=indim, weights=str(path))
    ours, theirs = model.network.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if not name.startswith("fc."))


def test_missing_and_unexpected_tensors_are_listed(tmp_path, imagenet):
    state = {k: v for k, v in imagenet.items() if k != "layer1.0.bn1.weight"} | {"extra.weight": torch.zeros(1)}
    state["layer4.1.conv2.weight"] = torch.zeros(512, 512, 1, 1)
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(UserError) as caught:
        ResNet18(3, weights=str(tmp_path / "bad.safetensors"))
    message = str(caught.value)
    assert "missing: layer1.0.bn1.weight" in message
    assert "unexpected: extra.weight" in message
    assert "layer4.1.conv2.weight (512, 512, 1, 1) instead of (512, 512, 3, 3)" in message


def test_file_that_is_not_there_is_no_training_from_scratch(tmp_path):
    with pytest.raises(UserError, match=r"arch\.args\.weights: there is no file"):
        ResNet18(3, weights=str(tmp_path / "none.pth"))


def test_null_weights_need_no_hub():
    assert ResNet18(3, pretrained=True, weights=None).eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 3)


def test_items_of_other_channels_or_axes_are_refused():
    args = {"label_dim": 3, "indim": 1}
    assert ResNet18.input_problem(args, (1, 64, 300)) is None
    assert "indim 1" in ResNet18.input_problem(args, (3, 224, 224))
    assert "(768, 128)" in ResNet18.input_problem(args, (768, 128))
    assert "32x32" in ResNet18.input_problem(args, (1, 16, 300))


def test_weights_that_would_not_be_used_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"arch\.args\.weights: is '.*none.pth', but pretrained is false"):
        ResNet18(3, pretrained=False, weights=str(tmp_path / "none.pth"))


def test_a_checkpoint_whose_config_names_weights_that_were_not_used_can_be_restored():
    args = {"label_dim": 3, "pretrained": False, "weights": "none.pth"}
    assert ResNet18(**without_weights(ResNet18, args)).eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
