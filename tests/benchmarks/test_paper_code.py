"""The baseline sees the same sounds as the program: else a ratio to it would mean nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks import paper_code
from data_loader.audio import cut_event, read_audio
from data_loader.features import methods
from data_loader.features.wav2vec_network import build_network
from data_loader.tables import read_table


@pytest.fixture(scope="module")
def event(tiny_data):
    """File, start and end of the longest event."""
    table = read_table(tiny_data, 1)
    row = table.iloc[(table["end_ms"] - table["start_ms"]).argmax()]
    return tiny_data / row["path"], int(row["start_ms"]), int(row["end_ms"])


@pytest.mark.parametrize("method", ["stft", "wavelet", "ast"])
def test_the_baseline_computes_the_programs_feature(event, method):
    recording, rate = read_audio(event[0])
    ours = methods[method](torch.from_numpy(cut_event(recording, rate, *event[1:])), rate)
    paper = paper_code.compute(method, *event)
    assert paper.dtype == torch.float32
    assert paper.shape == ((3, 224, 224) if method != "ast" else ours.shape)
    if method == "stft":
        # A picture has low frequencies at its bottom, and a colour for a level.
        ours, paper = ours[0], paper.mean(0).flip(0)
    correlation = np.corrcoef(ours.flatten(), paper.flatten())[0, 1]
    assert correlation > 0.9


@pytest.mark.parametrize("method", ["wav2vec", "ast_wav2vec"])
def test_the_baseline_takes_the_programs_layer_of_wav2vec(event, method, tmp_path, monkeypatch):
    network = build_network(encoder_embed_dim=128, encoder_num_heads=2, encoder_ff_interm_features=48)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    monkeypatch.setattr(paper_code, "network", lambda: network)
    recording, rate = read_audio(event[0])
    waveform = torch.from_numpy(cut_event(recording, rate, *event[1:]))
    ours = methods[method](waveform, rate, weights=str(tmp_path / "weights.pth"))
    paper = paper_code.compute(method, *event)
    assert paper.shape == ours.shape
    assert np.corrcoef(ours.flatten(), paper.flatten())[0, 1] > 0.99


def test_a_data_set_of_its_files_is_batched(event, tmp_path):
    path = event[0]
    files = paper_code.preprocess([event, (path, 0, -1), (path, 0, 400)], "ast", tmp_path)
    data, labels = next(iter(DataLoader(paper_code.PaperDataset(files, [0, 1, 2]), batch_size=3)))
    assert labels.tolist() == [0, 1, 2]
    assert torch.equal(data[2], paper_code.compute("ast", path, 0, 400))
