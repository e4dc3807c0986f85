"""Damaged files of pretrained weights."""

from __future__ import annotations

import io
import json
import shutil

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save as to_safetensors
from torch import nn

from data_loader.features.wav2vec_network import build_network, load_network
from model.ast_weights import SIZES, from_deit, read_folder
from model.weights import load_exactly, read_state_dict
from tests.fuzz.harness import answer, damaged, edited, edits, fuzz, values
from utils.errors import UserError

tensors = st.sampled_from(
    [
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(4, 6),
        torch.zeros(6, 4),
        torch.zeros(1, 6, 192),
        torch.zeros(2, 3, 4, 5),
        torch.ones(4, 6, dtype=torch.int64),
        torch.zeros(4, 6, dtype=torch.complex64),
        torch.zeros(4, 6, device="meta"),
        torch.zeros(4, 6).to_sparse(),
        torch.zeros(1).expand(10**12),
        torch.zeros(1, 1).expand(10**9, 10**9),
        torch.zeros(10**5, 1),
        torch.zeros(2, dtype=torch.float16),
    ]
)


def saved(value) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def network():
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize(("suffix", "write"), [("pth", saved), ("safetensors", to_safetensors)])
def test_a_damaged_weights_file_is_loaded_or_refused(tmp_path, suffix, write):
    path = tmp_path / f"weights.{suffix}"
    model = network()
    whole = write(model.state_dict())

    def refused(content):
        path.write_bytes(content)
        return isinstance(answer(lambda: load_exactly(model, read_state_dict(path), path), path), UserError)

    fuzz("weights", 100, damaged(whole, header=600), refused)
    assert not refused(whole)


def test_a_weights_file_may_hold_anything(tmp_path):
    path = tmp_path / "weights.pth"
    model = network()
    state = {"model": dict(model.state_dict()), "epoch": 3}

    def refused(changes):
        path.write_bytes(saved(edited(state, changes)))
        return isinstance(answer(lambda: load_exactly(model, read_state_dict(path), path), path), UserError)

    fuzz("weights", 120, edits(state, st.one_of(values, tensors)), refused)


def test_weights_of_a_deit_may_have_any_shapes(tmp_path):
    path = tmp_path / "deit.pth"
    state = {
        "pos_embed": torch.zeros(1, 6, 192),
        "patch_embed.proj.weight": torch.zeros(192, 3, 16, 16),
        "blocks.0.attn.qkv.weight": torch.zeros(9, 3),
        "head.weight": torch.zeros(3),
    }

    def refused(changes):
        path.write_bytes(saved(edited(state, changes)))
        return isinstance(answer(lambda: from_deit(read_state_dict(path), path), path), UserError)

    fuzz("weights", 80, edits(state, tensors), refused)


def test_weights_of_wav2vec_may_have_any_shapes(tmp_path):
    path = tmp_path / "wav2vec.pth"
    small = {"encoder_embed_dim": 64, "encoder_num_layers": 1, "encoder_num_heads": 1, "encoder_ff_interm_features": 8}
    convolutions = [
        (4, kernel, stride) for kernel, stride in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True)
    ]
    state = dict(
        build_network(**small, extractor_conv_layer_config=convolutions, encoder_pos_conv_kernel=4).state_dict()
    )
    path.write_bytes(saved(state))
    load_network(str(path))

    def refused(changes):
        path.write_bytes(saved(edited(state, changes)))
        return isinstance(answer(lambda: load_network(str(path)), path), UserError)

    fuzz("weights", 40, edits(state, st.one_of(tensors, values)), refused)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as transformers saves it, with an AST of one of the sizes."""
    from transformers import ASTConfig, ASTForAudioClassification

    size = SIZES["tiny224"]
    config = ASTConfig(
        hidden_size=size.hidden,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.hidden,
        num_mel_bins=16,
        max_length=16,
        id2label={0: "a", 1: "b"},
        label2id={"a": 0, "b": 1},
    )
    folder = tmp_path_factory.mktemp("ast")
    ASTForAudioClassification(config).save_pretrained(folder)
    return folder


def test_a_folder_of_weights_is_loaded_or_refused(folder, tmp_path):
    copy = tmp_path / "ast"
    config = json.loads((folder / "config.json").read_text())
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    header = 8 + int.from_bytes(whole["model.safetensors"][:8], "little")
    # The tensors themselves may hold any numbers: damage hits the header, and the file's end.
    beginning = damaged(whole["model.safetensors"][:header]).map(
        lambda start: start + whole["model.safetensors"][header:]
    )
    cut = st.integers(0, len(whole["model.safetensors"]) - 1).map(lambda size: whole["model.safetensors"][:size])
    described = edits(config).map(lambda changes: json.dumps(edited(config, changes), default=str).encode())
    strategy = st.one_of(
        st.tuples(st.just("config.json"), described),
        st.tuples(st.just("config.json"), damaged(whole["config.json"])),
        st.tuples(st.just("model.safetensors"), st.one_of(beginning, cut)),
    )

    def refused(drawn):
        name, content = drawn
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        (copy / name).write_bytes(content)
        return isinstance(answer(lambda: read_folder(copy, SIZES["tiny224"]), copy), UserError)

    fuzz("weights", 15, strategy, refused)
