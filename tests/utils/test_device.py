from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from utils.device import autocast, choose_device, choose_precision, make_deterministic, plain_module
from utils.errors import UserError

FUSED = ("flash", "mem_efficient", "cudnn")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)


def test_a_gpu_that_is_asked_for_and_not_there_is_a_warning(no_gpu, caplog):
    with caplog.at_level(logging.WARNING):
        assert choose_device(1) == torch.device("cpu")
    assert "there is no GPU" in caplog.text


@pytest.mark.parametrize("n_gpu", [None, 0])
def test_the_cpu_is_no_surprise_where_no_gpu_is_asked_for(no_gpu, caplog, n_gpu):
    assert choose_device(n_gpu) == torch.device("cpu")
    assert not caplog.text


def test_a_gpu_is_used_unless_none_is_wanted(two_gpus):
    assert choose_device(None) == choose_device(1) == torch.device("cuda", 0)
    assert choose_device(0) == torch.device("cpu")


def test_each_process_has_its_own_gpu(two_gpus, monkeypatch, caplog):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device(2) == torch.device("cuda", 1)
    assert not caplog.text


@pytest.mark.parametrize("launcher", ["torchrun", "another"])
def test_more_processes_than_gpus_are_an_error_under_torchrun(two_gpus, monkeypatch, launcher):
    for name, value in {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    if launcher == "torchrun":
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        with pytest.raises(UserError, match=r"3 processes for 2 GPUs .*--nproc_per_node=2"):
            choose_device(None)
        assert choose_device(0) == torch.device("cpu")
    else:
        # Each process may see GPUs of its own.
        assert choose_device(None) == torch.device("cuda", 0)


@pytest.fixture
def settings_of_torch(monkeypatch):
    """Puts back what `make_deterministic` sets."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    fused = {name: getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in FUSED}
    yield
    torch.use_deterministic_algorithms(False)
    for name, enabled in fused.items():
        getattr(torch.backends.cuda, f"enable_{name}_sdp")(enabled)


@pytest.mark.parametrize("gpu", [True, False])
def test_attention_is_deterministic_too_on_a_gpu(settings_of_torch, monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    make_deterministic(True)
    assert torch.are_deterministic_algorithms_enabled()
    # The CPU's fused attention is so anyway; of CUDA's, see the warnings of PyTorch's attention_backward.cu.
    assert [getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in FUSED] == [not gpu] * 3
    assert torch.backends.cuda.math_sdp_enabled()


def test_more_gpus_than_processes_name_torchrun(two_gpus, caplog):
    choose_device(2)
    assert "torchrun --nproc_per_node=2" in caplog.text


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_precision_is_that_of_the_matrix_products(precision):
    cpu = torch.device("cpu")
    assert choose_precision(precision, cpu) == precision
    with autocast(precision, cpu):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


@pytest.mark.parametrize(("has_amx", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_only_where_the_hardware_computes_it(monkeypatch, has_amx, precision):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert choose_precision("auto", torch.device("cpu")) == precision


def test_a_model_of_one_process_has_no_wrapper():
    model = nn.Linear(1, 1)
    assert plain_module(model) is model
