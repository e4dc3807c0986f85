from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from transformers import ASTConfig, ASTForAudioClassification

from model.ast import ASTModel
from model.ast_weights import from_deit
from model.weights import without_weights
from utils.errors import UserError

SMALL = {"input_tdim": 56, "input_fdim": 36, "model_size": "tiny224"}  # 3 x 5 patches


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Every tensor another: some start as all zeros or ones, where a mix-up would not show."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return module.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, ASTForAudioClassification]:
    """A folder in the format of MIT/ast-finetuned-audioset-10-10-0.4593, tiny and random, and its network."""
    config = ASTConfig(
        hidden_size=192, num_attention_heads=3, intermediate_size=768, num_mel_bins=36, max_length=56, num_labels=9
    )
    network = randomised(ASTForAudioClassification(config))
    folder = tmp_path_factory.mktemp("ast")
    network.save_pretrained(folder)
    return folder, network


@pytest.fixture(scope="module")
def deit() -> torch.nn.Module:
    torch.manual_seed(0)
    return randomised(timm.create_model("deit_tiny_distilled_patch16_224", pretrained=False))


def test_tracing_the_model_for_tensorboard_warns_of_nothing(caplog, monkeypatch):
    # transformers shows its log itself, and says each thing once a process.
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    logging.Logger.warning_once.cache_clear()
    model = ASTModel(3, **SMALL).eval()
    torch.jit.trace(model, torch.randn(1, 56, 36), strict=False)
    assert not [record for record in caplog.records if record.name.startswith("transformers")]


@pytest.mark.parametrize(
    "strides, dims", [((10, 10), (56, 36)), ((16, 16), (48, 32)), ((7, 11), (61, 33)), ((10, 10), (16, 16))]
)
def test_any_strides_and_input_give_one_row_of_logits_an_item(strides, dims):
    torch.manual_seed(0)
    model = ASTModel(3, *strides, input_tdim=dims[0], input_fdim=dims[1], model_size="tiny224")
    logits = model(torch.randn(2, *dims))
    assert logits.shape == (2, 3)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("indim", [1, 4])
def test_a_picture_of_several_channels_takes_no_more_patches(indim):
    torch.manual_seed(0)
    model = ASTModel(3, **SMALL, indim=indim)
    logits = model(torch.randn(2, indim, 36, 56))
    assert logits.shape == (2, 3)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.backbone.embeddings.position_embeddings.shape == (1, 2 + 3 * 5, 192)


def test_every_channel_of_a_picture_is_heard():
    torch.manual_seed(0)
    model = ASTModel(3, **SMALL, indim=4).eval()
    x = torch.randn(1, 4, 36, 56)
    with torch.no_grad():
        for channel in range(4):
            other = x.clone()
            other[:, channel] += torch.randn(36, 56)
            assert not torch.allclose(model(other), model(x), atol=1e-5)


def test_channels_that_are_all_the_same_are_heard_as_one_by_pretrained_patches(saved):
    torch.manual_seed(0)
    given = {**SMALL, "audioset_pretrain": True, "weights": str(saved[0])}
    one, four = ASTModel(3, **given).eval(), ASTModel(3, **given, indim=4).eval()
    x = torch.randn(2, 56, 36)
    picture = x.transpose(1, 2)[:, None].expand(-1, 4, -1, -1)
    torch.testing.assert_close(four.backbone(picture).pooler_output, one.backbone(x).pooler_output)


@pytest.mark.parametrize("size, millions", [("tiny224", 5.5), ("small224", 21.7), ("base384", 86.2)])
def test_sizes_are_those_of_deit(size, millions):
    model = ASTModel(3, input_tdim=56, input_fdim=36, model_size=size)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)
    assert len(model.backbone.layers) == 12


def test_the_two_tokens_of_a_random_network_differ():
    embeddings = ASTModel(3, **SMALL).backbone.embeddings
    assert not torch.equal(embeddings.cls_token, embeddings.distillation_token)
    assert embeddings.position_embeddings.std().item() == pytest.approx(0.02, rel=0.1)


def test_saved_state_gives_the_same_logits():
    model, other = ASTModel(3, **SMALL).eval(), ASTModel(3, **SMALL).eval()
    other.load_state_dict(model.state_dict())
    x = torch.randn(1, 56, 36)
    assert torch.equal(model(x), other(x))


def test_folder_gives_the_logits_of_transformers(saved):
    folder, network = saved
    model = ASTModel(9, **SMALL, audioset_pretrain=True, weights=str(folder)).eval()
    x = torch.randn(2, 56, 36)
    assert not torch.allclose(model(x), network(x).logits), "the head is a new one"
    model.head[0].load_state_dict(network.classifier.layernorm.state_dict())
    model.head[1].load_state_dict(network.classifier.dense.state_dict())
    torch.testing.assert_close(model(x), network(x).logits)


def test_folder_of_another_grid_is_cut_in_time_and_interpolated_in_frequency(saved):
    folder, network = saved
    model = ASTModel(
        3, input_tdim=36, input_fdim=66, model_size="tiny224", audioset_pretrain=True, weights=str(folder)
    )
    before = network.audio_spectrogram_transformer.embeddings.position_embeddings[0, 2:].unflatten(0, (3, 5))
    after = model.backbone.embeddings.position_embeddings[0, 2:].unflatten(0, (6, 3))
    torch.testing.assert_close(after[0], before[0, 1:4])
    torch.testing.assert_close(after[5], before[2, 1:4])
    torch.testing.assert_close(after[1], 0.75 * before[0, 1:4] + 0.25 * before[1, 1:4])


def test_folder_without_a_head_loads(saved, tmp_path):
    saved[1].audio_spectrogram_transformer.save_pretrained(tmp_path)
    model = ASTModel(3, **SMALL, audioset_pretrain=True, weights=str(tmp_path))
    ours, theirs = model.backbone.state_dict(), saved[1].audio_spectrogram_transformer
    assert all(torch.equal(ours[name], value) for name, value in theirs.state_dict().items())


def test_missing_unexpected_and_misshapen_tensors_are_listed(saved, tmp_path):
    state = load_file(saved[0] / "model.safetensors")
    prefix = "audio_spectrogram_transformer."
    del state[f"{prefix}encoder.layer.3.output.dense.bias"]
    state[f"{prefix}encoder.layer.12.output.dense.bias"] = torch.zeros(192)
    state[f"{prefix}layernorm.weight"] = torch.zeros(100)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((saved[0] / "config.json").read_bytes())
    with pytest.raises(UserError) as caught:
        ASTModel(3, **SMALL, audioset_pretrain=True, weights=str(tmp_path))
    message = str(caught.value)
    assert f"missing: {prefix}layers.3.mlp.fc2.bias" in message
    assert f"unexpected: {prefix}layers.12.mlp.fc2.bias" in message
    assert f"of another shape: {prefix}layernorm.weight (100,) instead of (192,)" in message
    assert "classifier" not in message


def test_folder_of_another_size_is_refused(saved):
    with pytest.raises(UserError, match=r"set arch\.args\.model_size to tiny224"):
        ASTModel(3, input_tdim=56, input_fdim=36, model_size="small224", audioset_pretrain=True, weights=str(saved[0]))


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"config.json": b"{"},
        {"config.json": b"[]"},
        {"config.json": b'{"model_type": "bert"}'},
        {"config.json": b'{"model_type": "audio-spectrogram-transformer", "hidden_size": 7}'},
        {"config.json": None},
        {"config.json": None, "model.safetensors": b"broken"},
        {"config.json": None, "model.safetensors": b""},
    ],
)
def test_broken_folder_is_an_error_of_one_line(saved, tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_bytes((saved[0] / name).read_bytes() if content is None else content)
    with pytest.raises(UserError) as caught:
        ASTModel(3, **SMALL, audioset_pretrain=True, weights=str(tmp_path))
    assert caught.value.subject.startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_deit_weights_give_the_features_of_timm_on_a_grey_picture(deit, tmp_path):
    torch.save({"model": deit.state_dict()}, tmp_path / "deit.pth")
    model = ASTModel(
        3, 16, 16, 224, 224, imagenet_pretrain=True, model_size="tiny224", weights=str(tmp_path / "deit.pth")
    ).eval()
    x = torch.randn(2, 224, 224)  # (batch, time, freq)
    reference = deit.forward_features(x.transpose(1, 2)[:, None].expand(-1, 3, -1, -1))
    features = model.backbone(x).last_hidden_state
    torch.testing.assert_close(features, reference, rtol=1e-3, atol=1e-3)


def test_deit_position_embeddings_are_cut_and_interpolated_as_by_the_authors(deit, tmp_path):
    save_file(deit.state_dict(), tmp_path / "deit.safetensors")
    model = ASTModel(3, imagenet_pretrain=True, model_size="tiny224", weights=str(tmp_path / "deit.safetensors"))
    # 768 x 128 with strides of 10: 12 of 14 rows from the middle, 76 columns out of 14.
    grid = deit.pos_embed[:, 2:].transpose(1, 2).reshape(1, 192, 14, 14)
    expected = torch.nn.functional.interpolate(grid, size=(14, 76), mode="bilinear")[:, :, 1:13]
    position = model.backbone.embeddings.position_embeddings
    torch.testing.assert_close(position[:, 2:], expected.flatten(2).transpose(1, 2))
    torch.testing.assert_close(position[:, :2], deit.pos_embed[:, :2])


def test_deit_tensors_are_all_accounted_for(deit, tmp_path):
    state = {k: v for k, v in deit.state_dict().items() if k != "blocks.2.attn.qkv.bias"} | {"extra": torch.zeros(1)}
    save_file(state, tmp_path / "deit.safetensors")
    with pytest.raises(UserError, match=r"layers\.2\.attention\.q_proj\.bias.*unexpected: extra"):
        ASTModel(3, **SMALL, imagenet_pretrain=True, weights=str(tmp_path / "deit.safetensors"))


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(UserError, match="distilled DeiT"):
        ASTModel(3, **SMALL, imagenet_pretrain=True, weights=str(tmp_path / "resnet.safetensors"))


def test_audioset_weights_of_the_hub_are_for_base384_only():
    with pytest.raises(UserError, match=r"arch\.args\.model_size: AudioSet weights are on the hub for base384"):
        ASTModel(3, audioset_pretrain=True, model_size="tiny224")


def test_items_of_another_shape_are_refused():
    args = {"fstride": 10, "tstride": 10, "input_fdim": 128, "input_tdim": 768, "indim": None}
    assert ASTModel.input_problem(args, (768, 128)) is None
    assert ASTModel.input_problem(args | {"indim": 4}, (4, 128, 768)) is None
    problem = ASTModel.input_problem(args | {"indim": 4}, (768, 128))
    assert problem == "ASTModel takes (indim, input_fdim, input_tdim) = (4, 128, 768), the items are (768, 128)"
    assert "(256, 128)" in ASTModel.input_problem(args, (256, 128))
    assert "at least 16" in ASTModel.input_problem({**args, "input_fdim": 8}, (768, 8))
    assert "at least 1" in ASTModel.input_problem({**args, "fstride": 0}, (768, 128))
    with pytest.raises(UserError, match="at least 16"):
        ASTModel(3, input_fdim=8)


def test_importing_the_models_imports_no_heavy_library():
    heavy = {"transformers", "timm", "sklearn"}
    code = f"import sys, model.ast, model.resnet, model.metric; print({heavy} & set(sys.modules))"
    root = Path(__file__).parents[2]
    output = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"


def test_a_tensor_without_axes_in_a_deit_is_left_for_the_caller_to_refuse(tmp_path):
    state = {"pos_embed": torch.zeros(1, 6, 192), "blocks.0.attn.qkv.weight": torch.zeros(())}
    assert "blocks.0.attn.qkv.weight" not in from_deit(state, tmp_path)[0]


@pytest.mark.parametrize("config", ["[" * 100_000, {"max_length": 10**9}, {"num_mel_bins": 10**12}])
def test_a_folder_that_describes_a_giant_is_refused(saved, tmp_path, config):
    folder = Path(shutil.copytree(saved[0], tmp_path / "ast"))
    whole = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(whole | config))
    with pytest.raises(UserError, match=r"config\.json"):
        ASTModel(9, **SMALL, audioset_pretrain=True, weights=str(folder))


def test_weights_that_would_not_be_used_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"arch\.args\.weights: is '.*none', but no pretraining is asked for"):
        ASTModel(3, **SMALL, weights=str(tmp_path / "none"))


def test_a_checkpoint_whose_config_names_weights_that_were_not_used_can_be_restored():
    args = {"label_dim": 3, **SMALL, "weights": "none"}
    assert ASTModel(**without_weights(ASTModel, args)).eval()(torch.zeros(1, 56, 36)).shape == (1, 3)
