"""The rearranged network against torchaudio's, which gets one item at a time, unpadded and in fp32."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from data_loader.features import linear, wav2vec_fast
from data_loader.features.wav2vec import ast_wav2vec
from data_loader.features.wav2vec_fast import FastWav2Vec2
from data_loader.features.wav2vec_network import KERNELS, STRIDES, build_network

SMALL = {
    "extractor_conv_layer_config": [(32, k, s) for k, s in zip(KERNELS, STRIDES, strict=True)],
    "encoder_embed_dim": 128,
    "encoder_num_heads": 2,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "encoder_ff_interm_features": 256,
}
# One frame, two neighbours of equal length, a rest of one frame behind a piece of 16, more than one piece.
LENGTHS = torch.tensor([400, 6000, 6000, 5600, 40_000, 2345])
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
every_precision = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def items():
    return [noise(int(length), seed=number) for number, length in enumerate(LENGTHS)]


def relative_error(found, expected):
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def correlation(found, expected):
    return float(torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1])


@pytest.fixture(scope="module")
def network():
    """A small network none of whose parameters has the value it starts with."""
    result = build_network(seed=3, **SMALL)
    for number, parameter in enumerate(result.parameters()):
        parameter += noise(*parameter.shape, seed=number) * (1.0 if parameter.ndim == 1 else 0.1)
    return result


def assert_agrees(network, waveforms, dtype, layer):
    """What the docstring of `ast_wav2vec` promises."""
    fast = FastWav2Vec2(network, dtype)
    frames, counts = fast(pad_sequence(waveforms, batch_first=True), torch.tensor(list(map(len, waveforms))), layer)
    for waveform, found, count in zip(waveforms, frames, counts.tolist(), strict=True):
        expected = network.extract_features(waveform[None], num_layers=layer)[0][-1][0]
        assert len(expected) == count
        assert not found[count:].any()
        if dtype == torch.float32:
            torch.testing.assert_close(found[:count], expected, atol=1e-4, rtol=1e-4)
            assert relative_error(found[:count], expected) < 1e-4
        else:
            assert relative_error(found[:count], expected) < 0.02
            assert correlation(found[:count], expected) > 0.9998


@every_precision
@pytest.mark.parametrize("layer", [1, 12])
def test_each_item_of_a_batch_has_the_frames_of_torchaudios_network_alone(network, dtype, layer):
    assert_agrees(network, items(), dtype, layer)


def test_the_network_of_full_size_agrees_too():
    network = build_network(encoder_num_layers=1)
    for dtype in DTYPES.values():
        assert_agrees(network, [noise(9000), noise(5000, seed=1)], dtype, 1)


@every_precision
def test_an_item_does_not_depend_on_the_others_in_its_batch(network, dtype):
    fast = FastWav2Vec2(network, dtype)
    together, counts = fast(pad_sequence(items(), batch_first=True), LENGTHS, 12)
    for item, found, count in zip(items(), together, counts.tolist(), strict=True):
        alone, _ = fast(item[None], torch.tensor([len(item)]), 12)
        # On the processors tried they are the same to the bit.
        assert relative_error(found[:count], alone[0]) < (1e-5 if dtype == torch.float32 else 0.01)


def test_an_item_shorter_than_a_frame_is_padded_to_one(network):
    fast = FastWav2Vec2(network, torch.float32)
    frames, counts = fast(noise(1, 120), torch.tensor([120]), 8)
    expected, _ = fast(functional.pad(noise(1, 120), (0, 280)), torch.tensor([400]), 8)
    assert counts.tolist() == [1]
    torch.testing.assert_close(frames, expected)


@every_precision
def test_a_channel_that_passes_only_weak_frequencies_is_normalised_exactly(dtype):
    network = build_network(seed=3, **SMALL)
    # A strong slow oscillation with a little noise, in channels without gain for what is constant.
    weight = network.feature_extractor.conv_layers[0].conv.weight
    weight -= weight.mean(dim=2, keepdim=True)
    waveform = torch.sin(torch.arange(16_000) * 0.002) * 0.5 + noise(16_000) * 0.01
    expected = network.double().extract_features(waveform[None].double(), num_layers=1)[0][0][0].float()
    found, _ = FastWav2Vec2(network.float(), dtype)(waveform[None], torch.tensor([16_000]), 1)
    assert relative_error(found[0], expected) < (1e-3 if dtype == torch.float32 else 0.02)


def test_the_size_of_the_parts_computed_at_once_changes_nothing(network, monkeypatch):
    fast = FastWav2Vec2(network, torch.float32)
    batch = pad_sequence(items(), batch_first=True)
    expected, _ = fast(batch, LENGTHS, 12)
    monkeypatch.setattr(wav2vec_fast, "_PIECE", 32)
    monkeypatch.setattr(wav2vec_fast, "_SCORES", 1)
    found, _ = fast(batch, LENGTHS, 12)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_silence_and_a_constant_give_what_torchaudios_network_gives(network):
    assert_agrees(network, [torch.zeros(4000), torch.full((4000,), 0.7)], torch.float32, 12)


@pytest.mark.parametrize("lacking", ["_is_for_onednn", "_multiplies_bf16"])
def test_on_other_processors_the_frames_are_the_same(network, lacking, monkeypatch):
    monkeypatch.setattr(linear, lacking, lambda device: False)
    assert_agrees(network, items(), torch.float32, 12)
    assert_agrees(network, items(), torch.bfloat16, 12)


def test_threads_share_one_network_and_give_what_one_thread_gives(network, tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    loaded = []
    load = wav2vec_fast.load_network
    monkeypatch.setattr(wav2vec_fast, "load_network", lambda weights: loaded.append(weights) or load(weights))
    batches = [noise(3, 4000 + 500 * number, seed=number) for number in range(6)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda batch: ast_wav2vec(batch, 8000, weights=str(path), precision="fp32"), batches))
    assert loaded == [str(path)]
    for batch, together in zip(batches, found, strict=True):
        torch.testing.assert_close(together, ast_wav2vec(batch, 8000, weights=str(path), precision="fp32"))
