"""Networks that are written in the config."""

from __future__ import annotations

import json
import os

import pytest
import torch
from torch import nn

from model import architectures
from model.layer_kinds import layer_kinds
from model.sequential_net import MAX_LAYERS, SequentialNet
from tests.tiny import ROOT, run, tiny_config, tiny_run, write_config
from trainer.check import check_config
from trainer.trained import load_trained
from utils.checkpoint import load_checkpoint
from utils.config import ConfigParser, set_key
from utils.errors import UserError

PICTURE = (1, 224, 224)
CONFIGS = ["task1_1_perceptron", "task1_1_shallow", "task1_1_deep"]


def layer(kind, **args):
    return {"type": kind, "args": args}


CONV = layer("Conv2d", out_channels=8, kernel_size=5)
LAST = layer("Linear", out_features=2)


def problem(layers, shape=PICTURE, label_dim=2):
    return SequentialNet.input_problem({"label_dim": label_dim, "layers": layers}, shape)


def test_a_network_is_what_its_config_says_and_sizes_that_are_left_out_are_filled_in():
    layers = [CONV, "BatchNorm2d", "ReLU", layer("MaxPool2d", kernel_size=[2, 4]), "Flatten", "BatchNorm1d", LAST]
    assert problem(layers, (3, 20, 20)) is None
    net = SequentialNet(2, layers, (3, 20, 20))
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.Flatten, nn.BatchNorm1d, nn.Linear]
    assert [type(module) for module in net.layers] == kinds
    assert net.layers[0].weight.shape == (8, 3, 5, 5)
    assert (net.layers[1].num_features, net.layers[5].num_features) == (8, 256)
    assert net.layers[6].weight.shape == (2, 8 * 8 * 4)
    assert net(torch.randn(5, 3, 20, 20)).shape == (5, 2)


def test_what_is_there_may_be_said_too():
    layers = [layer("Conv1d", in_channels=128, out_channels=4, kernel_size=3), "Tanh", "Flatten"]
    layers.append(layer("Linear", in_features=4 * 254, out_features=3))
    assert problem(layers, (128, 256), label_dim=3) is None


def test_features_without_channels_get_one_by_unflatten():
    layers = [layer("Unflatten", dim=1, unflattened_size=[1, -1]), CONV, "Sigmoid"]
    layers += [layer("AdaptiveAvgPool2d", output_size=1), "Flatten", LAST]
    assert SequentialNet(2, layers, (256, 128))(torch.randn(2, 256, 128)).shape == (2, 2)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (
            [CONV, "ReLU", layer("MaxPool2d", kernel_size=2), layer("Linear", in_features=4096, out_features=2)],
            "layer 4 (Linear): takes (4096,), gets (8, 110, 110): Flatten before it",
        ),
        ([CONV, LAST], "layer 2 (Linear): takes (features,), gets (8, 220, 220): Flatten before it"),
        (
            ["Flatten", layer("Linear", in_features=4096, out_features=2)],
            "layer 2 (Linear): takes (4096,), gets (50176,): leave in_features out, or set it to 50176",
        ),
        (
            [CONV, layer("Conv2d", in_channels=16, out_channels=4, kernel_size=3)],
            "layer 2 (Conv2d): takes (16, height, width), gets (8, 220, 220): leave in_channels out, or set it to 8",
        ),
        (["Flatten", CONV], "layer 2 (Conv2d): takes (channels, height, width), gets (50176,): Unflatten before it"),
        (
            ["Flatten", layer("BatchNorm1d", num_features=9), LAST],
            "layer 2 (BatchNorm1d): takes (9,) or (9, length), gets (50176,): leave num_features out,",
        ),
        ([layer("MaxPool2d", kernel_size=300)], "layer 1 (MaxPool2d): cannot take (1, 224, 224): "),
        ([layer("LayerNorm", normalized_shape=[5])], "layer 1 (LayerNorm): cannot take (1, 224, 224): "),
        (
            ["Flatten", layer("Linear", out_features=3)],
            "layer 2 (Linear), the last: gives (3,), the classes need (2,)",
        ),
        ([CONV], "layer 1 (Conv2d), the last: gives (8, 220, 220), the classes need (2,)"),
        ([layer("AdaptiveMaxPool2d", output_size=[1, 2]), "Flatten"], "layers: have no weights"),
    ],
)
def test_shapes_that_do_not_fit_name_the_layer_and_both_shapes(layers, says):
    assert says in problem(layers)
    with pytest.raises(UserError) as caught:
        SequentialNet(2, layers, PICTURE)
    assert caught.value.subject == "arch.args"
    assert says in caught.value.what


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (
            [layer("Conv2D", out_channels=2, kernel_size=3)],
            "layer 1: there is no layer 'Conv2D': did you mean Conv2d?",
        ),
        (["Transformer"], "there is no layer 'Transformer'"),
        (["Softmax"], "there is no layer 'Softmax'"),
        (["os.system"], "there is no layer 'os.system'"),
        (["__class__"], "there is no layer '__class__'"),
        (["Module"], "there is no layer 'Module'"),
        ([{"type": ["ReLU"]}], "there is no layer ['ReLU']"),
        ([["ReLU"]], "layer 1: is ['ReLU']: expected a name such as"),
        ([[[[[]]]] * 9999], "layer 1: is [[[[]]]"),
        ([None], "layer 1: is None"),
        (["ReLU", 3], "layer 2: is 3"),
        ([{"type": "ReLU", "arg": {}}], "layer 1: has the unknown key 'arg': did you mean args?"),
        ([{"type": "ReLU", "args": []}], "layer 1 (ReLU): its args are []: expected an object"),
        (
            [layer("Conv2d", out_channels=2, kernel=3)],
            "layer 1 (Conv2d).kernel: is unknown: did you mean kernel_size?",
        ),
        ([layer("Conv2d", out_channels=2)], "layer 1 (Conv2d).kernel_size: is missing"),
        ([layer("Conv2d", out_channels="8", kernel_size=3)], "(Conv2d).out_channels: is '8': expected a whole number"),
        ([layer("Conv2d", out_channels=8, kernel_size=[3, 3, 3])], "(Conv2d).kernel_size: is (3, 3, 3)"),
        ([layer("Conv2d", out_channels=8, kernel_size=3, device="cuda")], "(Conv2d).device: is unknown"),
        ([layer("MaxPool2d", kernel_size=3, return_indices=True)], "(MaxPool2d).return_indices: is unknown"),
        ([layer("Tanh", slope=1)], "(Tanh).slope: is unknown"),
        ([layer("Dropout", p=1.5)], "layer 1 (Dropout): cannot take (1, 224, 224): dropout probability"),
        # PyTorch's shapes alone would let these through, and a run would end in a traceback.
        ([layer("Conv2d", out_channels=8, kernel_size=3, padding=-1)], "its padding is -1: expected at least 0"),
        ([layer("Conv2d", out_channels=8, kernel_size=3, dilation=0)], "its dilation is 0: expected at least 1"),
        ([layer("Conv2d", out_channels=8, kernel_size=[3, 0])], "its kernel_size is 0: expected at least 1"),
        ([layer("Conv2d", out_channels=0, kernel_size=3)], "its out_channels is 0: expected at least 1"),
        (["Flatten", layer("Linear", out_features=-2)], "its out_features is -2: expected at least 1"),
        (["Flatten", layer("Linear", out_features=10**40)], "expected at most 2147483647"),
        ([layer("AdaptiveAvgPool2d", output_size=2**31 - 1)], "layer 1 (AdaptiveAvgPool2d): cannot take"),
        (["Flatten", layer("Linear", out_features=10**9)], "layer 2 (Linear): up to here the network needs 373,85"),
        ([layer("AdaptiveAvgPool2d", output_size=10**6)], "layer 1 (AdaptiveAvgPool2d): up to here the network needs"),
        ([], "layers: are 0: expected 1 to 1,000"),
        (["ReLU"] * 10_000, "layers: are 10,000: expected 1 to 1,000"),
    ],
)
def test_layers_that_make_no_sense_are_one_clear_clause(layers, says):
    found = problem(layers)
    assert says in found
    assert "\n" not in found
    assert len(found) < 800


@pytest.mark.parametrize(
    "mixing",
    [
        [layer("Flatten", start_dim=0)],
        [layer("LayerNorm", normalized_shape=[1, 4])],
        [layer("LayerNorm", normalized_shape=[2, 4])],
        [layer("Unflatten", dim=0, unflattened_size=[1, -1])],
        [layer("Linear", out_features=1), layer("Flatten", start_dim=0)],
    ],
)
def test_a_layer_that_reaches_over_the_items_of_a_batch_is_refused(mixing):
    assert f"layer {len(mixing)} (" in problem([*mixing, LAST], (4,))


@pytest.mark.parametrize("kept", [True, False])
def test_batch_normalisation_that_keeps_no_statistics_is_refused(kept):
    found = problem([CONV, layer("BatchNorm2d", track_running_stats=kept), "Flatten", LAST])
    assert found is None if kept else "layer 2 (BatchNorm2d): keeps no statistics" in found


def test_a_layer_that_takes_no_single_item_is_refused():
    # In evaluation the last batch may have but one.
    assert "layer 1 (GroupNorm): cannot take (3, 1, 1)" in problem([layer("GroupNorm", num_groups=3)], (3, 1, 1))


def test_inplace_is_taken_where_it_hurts_nothing():
    inplace = layer("ReLU", inplace=True)
    assert problem([CONV, inplace, "Flatten", LAST]) is None
    assert "pass no gradient back" in problem([CONV, "Sigmoid", inplace, "Flatten", LAST])


def test_waveforms_of_any_length_are_refused():
    assert "set data_loader.args.duration" in problem(["Flatten", LAST], (-1,))


def test_what_a_network_needs_is_compared_with_the_memory_of_the_machine(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 1000}[name])
    # 50,176 numbers of the input, and twice 100,352 weights: 0.8 MB of content, 1.0 MB in all.
    assert problem(["Flatten", layer("Linear", out_features=1)], label_dim=1) is None
    assert "layer 2 (Linear): up to here" in problem(["Flatten", LAST])


def test_the_largest_number_of_layers_works():
    layers = ["Flatten", *["Tanh"] * (MAX_LAYERS - 2), LAST]
    net = SequentialNet(2, layers, (4,))
    net(torch.randn(3, 4)).sum().backward()
    assert net.layers[-1].weight.grad is not None


def test_every_layer_that_a_config_may_name_is_a_module_of_torch_of_that_name():
    assert all(kind.module is getattr(nn, name) for name, kind in layer_kinds.items())
    assert layer_kinds.keys() >= {"Linear", "Conv2d", "MaxPool2d", "AvgPool2d", "ReLU", "Tanh", "Sigmoid", "Flatten"}


def test_the_input_shape_is_the_programs_to_give(tiny_data, tmp_path):
    arch = {"type": "SequentialNet", "args": {"label_dim": 2, "layers": ["Flatten", LAST], "input_shape": [4]}}
    with pytest.raises(UserError, match=r"arch\.args\.input_shape: is unknown"):
        check_config(ConfigParser(tiny_config(tiny_data, tmp_path, arch=arch)))


def test_the_check_before_training_names_the_layer(tiny_data, tmp_path, capsys):
    arch = {"type": "SequentialNet", "args": {"label_dim": 2, "layers": [CONV, LAST]}}
    path = write_config(tmp_path / "c.json", tiny_config(tiny_data, tmp_path / "saved", arch=arch))
    assert run("train", "-c", path, "-d", "cpu") == 1
    says = "error: arch.args: layer 2 (Linear): takes (features,), gets (8, 220, 220): Flatten before it"
    assert says in capsys.readouterr().err
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_ready_config_trains_and_its_checkpoint_is_tested_and_resumed_alone(tiny_data, tmp_path, name):
    saved = tmp_path / "saved"
    where = ["--data-dir", tiny_data, "--set", f"trainer.save_dir={saved}", "trainer.epochs=1"]
    where += ["trainer.tensorboard=false", "trainer.precision=fp32"]
    assert run("train", "-c", ROOT / "configs" / f"{name}.json", "-d", "cpu", "--run_id", "a", *where) == 0
    best = saved / "model_best.pth"
    assert run("test", "-r", best, "-d", "cpu", "--out-dir", tmp_path / "report") == 0
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert sum(map(sum, metrics["confusion_matrix"])) == metrics["n"] > 0
    trained = load_trained(best, torch.device("cpu"))
    assert isinstance(trained.model, architectures["SequentialNet"])
    for key, tensor in load_checkpoint(best)["state_dict"].items():
        assert torch.equal(trained.model.state_dict()[key], tensor)
    last = saved / "models" / name / "a" / "checkpoint-epoch1.pth"
    assert run("train", "-r", last, "-d", "cpu", "--set", "trainer.epochs=1") == 0


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("config.arch.args.layers", ["Flatten"], "gives (50176,), the classes need (2,)"),
        ("config.arch.args.layers", ["os.system"], "there is no layer 'os.system'"),
        ("config.arch.args.layers", "Flatten", "expected a list"),
        ("config.arch.args.layers", ["Flatten", LAST, LAST], "no layers.2.weight"),
        ("config.arch.args.layers", ["Flatten", layer("Linear", out_features=10**9)], "GiB"),
        ("input.shape", [1, 224, 225], "layers.1.weight is (2, 50176), not (2, 50400)"),
        ("input.shape", [10**18, 10**18], "cannot take items of (1000000000000000000, 1000000000000000000)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_itself_is_one_clear_error(tiny_data, tmp_path, key, value, says):
    arch = {"type": "SequentialNet", "args": {"label_dim": 2, "layers": ["Flatten", LAST]}}
    trainer = tiny_run(tiny_data, tmp_path, arch=arch)
    trainer._save_checkpoint(1, save_best=True)
    checkpoint = load_checkpoint(trainer.to_test())
    set_key(checkpoint, key, value)
    torch.save(checkpoint, tmp_path / "c.pth")
    with pytest.raises(UserError) as caught:
        load_trained(tmp_path / "c.pth", torch.device("cpu"))
    assert caught.value.subject == str(tmp_path / "c.pth")
    assert says in str(caught.value)
