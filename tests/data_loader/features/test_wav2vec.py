import hashlib
import logging
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch.nn import functional

from data_loader.features import wav2vec_fast, wav2vec_network
from data_loader.features.wav2vec import ast_wav2vec, wav2vec
from data_loader.features.wav2vec_fast import TransformerLayer, fast_network
from data_loader.features.wav2vec_network import (
    HUB_URL,
    KERNELS,
    STRIDES,
    build_network,
    load_network,
    weights_fingerprint,
)
from utils.errors import UserError

SMALL = {
    "extractor_conv_layer_config": [(16, k, s) for k, s in zip(KERNELS, STRIDES, strict=True)],
    "encoder_embed_dim": 128,
    "encoder_num_heads": 2,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "encoder_ff_interm_features": 48,
}


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.1


@pytest.fixture
def state():
    return dict(build_network(seed=3, **SMALL).state_dict())


@pytest.fixture
def saved(state, tmp_path):
    """Saves a state dict, by default the small network's, and returns the file's path."""

    def save(content=state):
        path = tmp_path / "weights.pth"
        torch.save(content, path)
        return str(path)

    return save


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def download(url, path, *args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints" / HUB_URL.rsplit("/", 1)[-1]


@pytest.mark.parametrize("feature, layer", [(ast_wav2vec, 8), (wav2vec, 12)])
def test_the_network_stops_at_the_layer_it_needs(feature, layer, saved, monkeypatch):
    called = []
    compute = TransformerLayer.__call__
    monkeypatch.setattr(TransformerLayer, "__call__", lambda self, *args: called.append(self) or compute(self, *args))
    weights = saved()
    feature(noise(4000), 8000, weights=weights, precision="fp32")
    assert called == fast_network(weights, torch.device("cpu"), torch.float32).layers[:layer]


def test_features_are_resized_outputs_of_layers_8_and_12_of_torchaudios_network(saved):
    from torchaudio.functional import resample

    weights = saved()
    waveform = noise(12_000)
    with torch.inference_mode():
        outputs, _ = build_network(seed=3, **SMALL).extract_features(resample(waveform[None], 8000, 16000))
    eighth, twelfth = outputs[7].mT, outputs[11].mT
    resize = {"mode": "bilinear", "antialias": True, "align_corners": False}
    expected = functional.interpolate(eighth[None], (128, 128), **resize)[0, 0]
    torch.testing.assert_close(
        ast_wav2vec(waveform, 8000, weights=weights, precision="fp32"), expected, atol=1e-4, rtol=1e-4
    )
    expected = functional.interpolate(twelfth[None], (224, 224), **resize)[0]
    picture = wav2vec(waveform, 8000, weights=weights, precision="fp32")
    torch.testing.assert_close(picture, expected, atol=1e-4, rtol=1e-4)


def test_a_precision_that_is_none_is_refused(saved):
    with pytest.raises(UserError, match="there is no precision 'fp61'") as raised:
        wav2vec(noise(2000), 8000, weights=saved(), precision="fp61")
    assert "fp32" in raised.value.hint
    with pytest.raises(UserError, match="precision: is 'fp61'"):
        wav2vec.checked({"precision": "fp61"}, "--wav2vec")


def test_a_file_of_the_older_weight_norm_loads_the_same(state, saved):
    prefix = "encoder.transformer.pos_conv_embed.conv."
    old = {name.replace("parametrizations.weight.original0", "weight_g"): v for name, v in state.items()}
    old = {name.replace("parametrizations.weight.original1", "weight_v"): v for name, v in old.items()}
    assert {f"{prefix}weight_g", f"{prefix}weight_v"} <= set(old)
    loaded = load_network(saved(old)).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_the_speech_recognition_head_is_dropped(state, saved):
    with_head = {**state, "aux.weight": torch.zeros(32, 128), "aux.bias": torch.zeros(32)}
    assert load_network(saved(with_head)).aux is None


def test_missing_and_unexpected_tensors_are_listed(state, saved):
    del state["encoder.transformer.layers.3.attention.k_proj.bias"]
    state["masked_spec_embed"] = torch.zeros(1)
    with pytest.raises(UserError) as raised:
        load_network(saved(state))
    assert "missing: encoder.transformer.layers.3.attention.k_proj.bias" in raised.value.what
    assert "unexpected: masked_spec_embed" in raised.value.what


def test_a_state_dict_of_something_else_is_refused(saved):
    with pytest.raises(UserError, match=r"is not a wav2vec 2\.0 state dict"):
        load_network(saved({"conv1.weight": torch.zeros(2)}))


def test_tensors_that_do_not_fit_together_are_refused(state, saved):
    state["encoder.transformer.layers.0.attention.k_proj.bias"] = torch.zeros(5)
    with pytest.raises(UserError, match=r"do not fit together.*layers\.0\.attention\.k_proj\.bias") as raised:
        load_network(saved(state))
    assert "\n" not in str(raised.value)


def test_too_few_layers_are_refused(saved):
    small = build_network(**{**SMALL, "encoder_num_layers": 8}).state_dict()
    weights = saved(small)
    assert ast_wav2vec(noise(2000), 8000, weights=weights).shape == (128, 128)
    with pytest.raises(UserError, match="has 8 transformer layers, the feature needs 12"):
        wav2vec(noise(2000), 8000, weights=weights)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_checkpoint_is_named(content, tmp_path):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a PyTorch checkpoint") as raised:
        load_network(str(path))
    assert raised.value.subject == str(path)
    assert "\n" not in str(raised.value)


def test_a_checkpoint_of_objects_is_refused(saved):
    with pytest.raises(UserError):
        load_network(saved({"path": Path("x")}))
    with pytest.raises(UserError, match="is not a state dict of tensors"):
        load_network(saved([1, 2]))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError) as raised:
        load_network(str(tmp_path / "nowhere.pth"))
    assert raised.value.subject == str(tmp_path / "nowhere.pth")


def test_offline_says_what_to_fetch_and_where_to_put_it(offline):
    with pytest.raises(UserError) as raised:
        ast_wav2vec(noise(2000), 8000)
    assert raised.value.subject == str(offline)
    assert HUB_URL in raised.value.hint
    assert "--weights FILE" in raised.value.hint


def test_the_hubs_cached_file_is_used_without_a_network(offline, state):
    offline.parent.mkdir(parents=True)
    torch.save(state, offline)
    assert load_network("hub").encoder.feature_projection.projection.out_features == 128
    assert weights_fingerprint("hub") == hashlib.sha256(offline.read_bytes()).hexdigest()


def test_the_hub_file_is_that_of_torchaudios_bundle():
    from torchaudio.pipelines import WAV2VEC2_BASE

    assert HUB_URL.rsplit("/", 1)[-1] == WAV2VEC2_BASE._path
    assert WAV2VEC2_BASE.sample_rate == wav2vec_network.RATE


def test_fingerprints_tell_weights_apart(saved, state):
    first = weights_fingerprint(saved())
    state["encoder.transformer.layer_norm.bias"] += 1
    assert weights_fingerprint(saved(state)) != first
    assert weights_fingerprint("random") == "random"


def test_a_changed_file_is_loaded_anew_and_an_unchanged_one_is_not(saved, state):
    weights = saved()
    how = torch.device("cpu"), torch.float32
    network = fast_network(weights, *how)
    assert fast_network(weights, *how) is network
    saved({**state, "aux.bias": torch.zeros(1)})
    assert fast_network(weights, *how) is not network


def test_random_weights_warn_repeat_and_leave_the_global_random_state_alone(caplog, monkeypatch):
    build = wav2vec_network.build_network
    monkeypatch.setattr(wav2vec_network, "build_network", lambda **arguments: build(**{**SMALL, **arguments}))
    wav2vec_fast._cached.cache_clear()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    with caplog.at_level(logging.WARNING):
        first = ast_wav2vec(noise(2000), 8000, weights="random")
    assert "MEANINGLESS" in caplog.text
    assert torch.equal(torch.random.get_rng_state(), before)
    wav2vec_fast._cached.cache_clear()
    torch.testing.assert_close(ast_wav2vec(noise(2000), 8000, weights="random"), first)
    wav2vec_fast._cached.cache_clear()


def test_base_has_the_dimensions_of_torchaudios_bundle():
    from torchaudio.pipelines import WAV2VEC2_BASE

    captured = {}

    def factory(**arguments):
        captured.update(arguments)
        return torch.nn.Module()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchaudio.models.wav2vec2_model", factory)
        build_network()
    assert captured == WAV2VEC2_BASE._params


def test_a_tensor_whose_shape_asks_for_terabytes_is_refused(state, saved):
    state["encoder.feature_projection.projection.weight"] = torch.zeros(64 * 10**5, 1)
    with pytest.raises(UserError, match=r"weights\.pth: "):
        load_network(saved(state))
    state["encoder.feature_projection.projection.weight"] = torch.zeros(1, 1).expand(64 * 10**6, 10**6)
    with pytest.raises(UserError, match="is not a state dict"):
        load_network(saved(state))
