from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from model.timm_model import TimmModel
from utils.errors import UserError

BACKBONE = "test_efficientnet"


def make(**args):
    torch.manual_seed(0)
    return TimmModel(**{"label_dim": 3, "backbone": BACKBONE, "weights": None, **args})


def trained(model):
    return {name for name, parameter in model.network.named_parameters() if parameter.requires_grad}


def names(model, first):
    """Parameters of all but so many first stages, and of the last layer."""
    frozen = {name for stage in model.stages[:first] for name in stage}
    return {name for name, _ in model.network.named_parameters()} - frozen


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A state dict as timm publishes it, with random numbers."""
    torch.manual_seed(0)
    state = timm.create_model(BACKBONE, pretrained=False).state_dict()
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_file(state, path)
    return path, state


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_convnext", "test_byobnet"])
@pytest.mark.parametrize("indim", [1, 3])
def test_forward_and_backward_reach_every_parameter(backbone, indim):
    model = make(backbone=backbone, indim=indim)
    logits = model(torch.randn(2, indim, 64, 96))
    assert logits.shape == (2, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    "backbone, stages",
    [("resnet18", 5), ("efficientnet_b0", 8), ("vit_tiny_patch16_224", 13), ("deit_tiny_distilled_patch16_224", 13)],
)
def test_stages_are_the_stem_and_the_blocks_in_order(backbone, stages):
    model = make(backbone=backbone)
    assert len(model.stages) == stages
    firsts = ("conv1.", "conv_stem.", "cls_token")
    assert model.stages[0][0].startswith(firsts)
    listed = [name for stage in model.stages for name in stage]
    assert len(listed) == len(set(listed))
    last = {name for name, _ in model.network.named_parameters()} - set(listed)
    assert {name.partition(".")[0] for name in last} <= {"fc", "classifier", "head", "head_dist"}


def test_dropout_works_in_training_alone():
    x = torch.randn(2, 1, 64, 64)
    plain, model = make(), make(dropout=0.9)
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))
    assert not torch.allclose(model.train()(x), plain.train()(x))


@pytest.mark.parametrize("indim", [1, 2, 3])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_weights_is_used_whole_and_its_last_layer_replaced(tmp_path, imagenet, indim, suffix):
    path, state = imagenet
    if suffix == ".pth":
        path = tmp_path / "net.pth"
        torch.save(state, path)
    own = make(weights=str(path), indim=indim).network.state_dict()
    assert own.keys() == state.keys()
    for name, value in own.items():
        if name.startswith("classifier."):
            assert len(value) == 3
        elif name != "conv_stem.weight":
            assert torch.equal(value, state[name]), name
    expected = timm.models.adapt_input_conv(indim, state["conv_stem.weight"])
    assert torch.equal(own["conv_stem.weight"], expected)


def test_no_second_copy_of_the_weights_is_kept(imagenet):
    assert "state_dict" not in make(weights=str(imagenet[0])).network.pretrained_cfg


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, imagenet, change):
    state = dict(imagenet[1])
    if change == "missing":
        del state["bn1.weight"]
    elif change == "unexpected":
        state["bn1.extra"] = torch.zeros(1)
    else:
        state["bn1.weight"] = torch.zeros(5)
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match=r"bad\.safetensors: the weights do not fit test_efficientnet: .*bn1\."):
        make(weights=str(tmp_path / "bad.safetensors"))


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="do not fit"):
        make(weights=str(tmp_path / "other.safetensors"))


def test_a_network_without_weights_on_the_hub_does_not_train_from_scratch():
    with pytest.raises(UserError, match=r"arch\.args\.weights: there are no weights of coatnet_0_224 on the hub"):
        make(backbone="coatnet_0_224", weights="hub")


@pytest.mark.parametrize(
    "backbone, hint",
    [
        ("eficientnet_b0", "did you mean efficientnet_b0"),
        ("zzzz", "timm.list_models"),
        ("efficientnet_b0.nope", "efficientnet_b0.ra_in1k"),
        ("hf-hub:someone/something", "timm.list_models"),
    ],
)
def test_an_unknown_backbone_is_named_with_the_nearest(backbone, hint):
    with pytest.raises(UserError, match=r"arch\.args\.backbone") as caught:
        make(backbone=backbone)
    assert hint in str(caught.value)
    with pytest.raises(UserError, match=r"arch\.args\.backbone"):
        TimmModel.input_problem({"indim": 1, "backbone": backbone}, (1, 224, 224))


@pytest.mark.parametrize(
    "args, subject",
    [
        ({"freeze": 7}, "freeze"),
        ({"freeze": -1}, "freeze"),
        ({"unfreeze_at": [2]}, "unfreeze_at"),
        ({"freeze": 0, "unfreeze_at": [2]}, "unfreeze_at"),
        ({"freeze": 2, "unfreeze_at": [3, 2]}, "unfreeze_at"),
        ({"freeze": 2, "unfreeze_at": [1, 2]}, "unfreeze_at"),
        ({"freeze": 2, "unfreeze_at": [2, 3, 4]}, "unfreeze_at"),
        *(({"layer_decay": value}, "layer_decay") for value in (0.0, 1.01, 50.0, float("nan"))),
    ],
)
def test_what_cannot_be_frozen_is_an_error_of_the_config(args, subject):
    with pytest.raises(UserError) as caught:
        make(**args)
    assert caught.value.subject == f"arch.args.{subject}"


def test_a_frozen_backbone_trains_the_last_layer_alone():
    model = make(freeze="backbone")
    assert trained(model) == {"classifier.weight", "classifier.bias"}
    (group,) = model.parameter_groups()
    assert [p.shape for p in group["params"]] == [(3, 256), (3,)]
    assert trained(make(freeze=2)) == names(model, 2)
    assert trained(make()) == names(model, 0)


def test_frozen_batch_normalisation_stays_in_evaluation_mode():
    model = make(freeze=3).train()
    before = {name: buffer.clone() for name, buffer in model.network.named_buffers()}
    model(torch.randn(4, 1, 64, 64))
    changed = {name for name, buffer in model.network.named_buffers() if not torch.equal(buffer, before[name])}
    frozen = {name.rpartition(".")[0] for stage in model.stages[:3] for name in stage}
    norms = {name for name, module in model.network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert norms & frozen
    assert {name.rpartition(".")[0] for name in changed} == norms - frozen


def test_stages_are_set_free_from_the_last_to_the_first():
    model = make(freeze="backbone", unfreeze_at=[2, 5, 6])
    assert len(model.stages) == 6
    assert [model.frozen_stages(epoch) for epoch in range(1, 8)] == [6, 4, 4, 4, 2, 0, 0]
    for epoch in (1, 6, 2, 5):  # in any order: the state is that of the number
        model.on_epoch(epoch)
        assert trained(model) == names(model, model.frozen_stages(epoch))
        model.train()
        norms = dict(model.network.named_modules())
        assert norms["blocks.0.0.bn1"].training == (model.frozen_stages(epoch) < 2)


def test_what_is_set_free_later_is_in_the_optimizer_from_the_start():
    model = make(freeze="backbone", unfreeze_at=[2])
    model.on_epoch(1)
    assert sum(len(group["params"]) for group in model.parameter_groups()) == len(list(model.parameters()))
    kept = make(freeze=4).parameter_groups()
    assert sum(len(group["params"]) for group in kept) == len(names(model, 4))


def test_learning_rates_fall_from_the_last_layer_to_the_stem():
    model = make(layer_decay=0.5)
    groups = model.parameter_groups()
    assert [group["lr_scale"] for group in groups] == [0.5**depth for depth in range(7)]
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in model.network.classifier.parameters()}
    assert any(p is model.network.conv_stem.weight for p in groups[-1]["params"])
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(map(id, model.parameters()))


def test_items_of_other_channels_or_sides_are_refused():
    args = {"label_dim": 3, "indim": 1, "backbone": "efficientnet_b0", "dropout": 0.0, "layer_decay": 1.0}
    assert TimmModel.input_problem(args, (1, 64, 300)) is None
    assert "indim 1" in TimmModel.input_problem(args, (3, 224, 224))
    assert "(768, 128)" in TimmModel.input_problem(args, (768, 128))
    assert "32x32" in TimmModel.input_problem(args, (1, 16, 300))
    fixed = args | {"backbone": "vit_tiny_patch16_224"}
    assert TimmModel.input_problem(fixed, (1, 224, 224)) is None
    assert "224x224" in TimmModel.input_problem(fixed, (1, 64, 300))


def test_shares_out_of_range_are_said_before_anything_is_built():
    args = {"label_dim": 3, "indim": 1, "backbone": BACKBONE, "dropout": 1.0, "layer_decay": 0.5}
    assert TimmModel.input_problem(args, (1, 64, 300)) is None
    for dropout in (2.0, -1):
        assert TimmModel.input_problem(args | {"dropout": dropout}, (1, 64, 300)) == (
            f"dropout is {dropout}, expected 0 to 1"
        )
        with pytest.raises(UserError, match=r"arch\.args: dropout is"):
            make(dropout=dropout)
    for decay in (0.0, -1, 50.0):
        problem = TimmModel.input_problem(args | {"layer_decay": decay}, (1, 64, 300))
        assert problem == f"layer_decay is {decay}, expected more than 0 and at most 1, 1 is none"
