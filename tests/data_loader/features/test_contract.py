"""What every registered feature method promises, whatever it computes."""

import warnings

import pytest
import torch

from data_loader.features import methods
from data_loader.features.wav2vec_fast import FastWav2Vec2
from data_loader.features.wav2vec_network import build_network
from tests.fake_cuda import CUDA, fake_gpu

SHAPES = {
    "stft": (1, 224, 224),
    "wavelet": (3, 224, 224),
    "ast": (256, 128),
    "ast_wav2vec": (768, 128),
    "wav2vec": (1, 224, 224),
    "mel": (1, 64, 801),
    "mel32k": (1, 128, 1000),
    "multimel": (4, 64, 1232),
    "multimel_event": (4, 64, 192),
    "summary": (180,),
}
VARIANTS = [
    ("stft", {}),
    ("wavelet", {}),
    ("ast", {}),
    ("ast", {"frontend": "kaldi"}),
    ("mel", {}),
    ("mel", {"fit": "pad", "duration": 2.0, "n_mels": 32}),
    ("mel32k", {"duration": 1.0}),
    ("mel32k", {"fit": "pad", "duration": 2.0}),
    ("multimel", {"duration": 2.0}),
    ("multimel_event", {}),
    ("summary", {}),
    ("wav2vec", {"precision": "fp32"}),
    ("ast_wav2vec", {"precision": "fp32"}),
    ("ast_wav2vec", {"precision": "bf16"}),
]
every_method = pytest.mark.parametrize("name, params", VARIANTS, ids=lambda value: str(value or "-"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small random network with twelve layers, in the format of torchaudio's file."""
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    small = {
        "extractor_conv_layer_config": [
            (16, k, s) for k, s in zip((10, 3, 3, 3, 3, 2, 2), (5, *[2] * 6), strict=True)
        ],
        "encoder_embed_dim": 64,
        "encoder_num_heads": 1,
        "encoder_pos_conv_kernel": 16,
        "encoder_pos_conv_groups": 4,
        "encoder_ff_interm_features": 32,
    }
    torch.save(build_network(**small).state_dict(), path)
    return str(path)


def parameters(name, params, weights):
    return {**params, "weights": weights} if "wav2vec" in name else params


def tolerance(params):
    """Of values near 1 between two ways to compute them."""
    return 0.1 if params.get("precision") == "bf16" else 1e-4


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.01


def test_the_methods_are_those_of_the_design():
    assert sorted(methods) == sorted(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_those_of_the_design_for_one_and_for_a_batch(name, weights):
    params = parameters(name, {}, weights)
    shape = (64, *SHAPES[name][1:]) if name == "ast_wav2vec" else SHAPES[name]  # the small network has 64 dimensions
    one = methods[name](noise(8000), 8000, **params)
    batch = methods[name](noise(2, 8000), 8000, **params)
    assert (one.shape, batch.shape) == (shape, (2, *shape))
    assert one.dtype == batch.dtype == torch.float32


@every_method
def test_an_item_does_not_depend_on_its_batch_or_padding(name, params, weights):
    params = parameters(name, params, weights)
    # Equal lengths, an event of 126 ms, one below a network frame, one that ends on a hop and one that does not.
    lengths = torch.tensor([8000, 1008, 150, 8000, 4321, 4320])
    items = [noise(int(length), seed=i) for i, length in enumerate(lengths)]
    padded = torch.nn.utils.rnn.pad_sequence(items, batch_first=True)
    rubbish = torch.nn.functional.pad(padded, (0, 777))
    rubbish[torch.arange(rubbish.shape[1]) >= lengths[:, None]] = 3.0
    alone = torch.stack([methods[name](item, 8000, **params) for item in items])
    for batch in (padded, rubbish):
        together = methods[name](batch, 8000, lengths, **params)
        torch.testing.assert_close(together, alone, atol=tolerance(params), rtol=1e-4)


@every_method
@pytest.mark.parametrize("rate", [4000, 8000, 16000, 44100])
def test_odd_items_are_finite_at_every_rate(name, params, rate, weights):
    params = parameters(name, params, weights)
    lengths = torch.tensor([rate // 2, rate // 2, 1, 2, round(0.126 * rate), rate // 2])
    items = noise(6, rate // 2)
    items[0] = 0.0
    items[1] = 0.7
    items[5] = 0.0
    items[5, 100] = 1 / 32768
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = methods[name](items, rate, lengths, **params)
    assert torch.isfinite(features).all()
    if methods[name].unit_range:
        assert features.min() >= 0.0
        assert features.max() <= 1.0


@every_method
def test_the_input_is_left_as_it_was(name, params, weights):
    items = noise(2, 3000)
    before = items.clone()
    methods[name](items, 8000, torch.tensor([3000, 2000]), **parameters(name, params, weights))
    assert torch.equal(items, before)


@every_method
def test_the_result_can_be_trained_on(name, params, weights):
    feature = methods[name](noise(1, 3000), 8000, **parameters(name, params, weights))
    weight = torch.ones(feature.shape[-1], requires_grad=True)
    (feature * weight).sum().backward()
    assert torch.isfinite(weight.grad).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_method
def test_a_gpu_gives_what_the_cpu_gives(name, params, weights):
    params = parameters(name, params, weights)
    items, lengths = noise(3, 8000), torch.tensor([8000, 1008, 4321])
    on_gpu = methods[name](items.cuda(), 8000, lengths.cuda(), **params)
    assert on_gpu.device.type == "cuda"
    on_cpu = methods[name](items, 8000, lengths, **params)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=max(2e-2, tolerance(params)), rtol=1e-2)


@every_method
def test_all_that_meets_on_a_gpu_is_there(name, params, weights, monkeypatch):
    params = parameters(name, params, weights)
    # A fake tensor cannot be in inference mode.
    monkeypatch.setattr(FastWav2Vec2, "__call__", FastWav2Vec2.__call__.__wrapped__)
    items, lengths = noise(3, 8000), torch.tensor([8000, 1008, 4321])
    with fake_gpu():
        on_gpu = methods[name](items.to(CUDA), 8000, lengths.to(CUDA), **params)
        assert on_gpu.device == CUDA
        on_gpu = on_gpu.cpu()
    torch.testing.assert_close(
        on_gpu, methods[name](items, 8000, lengths, **params), atol=tolerance(params), rtol=1e-4
    )
