from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save
from torch import nn

from model.lightcnn import LightCNN
from model.resnet import ResNet18
from model.weights import hub_files, load_exactly, local_path, read_state_dict, without_weights
from utils.errors import UserError

REPO = "timm/resnet18.a1_in1k"


class _Hub(BaseHTTPRequestHandler):
    """Serves one file the way the hub does: a commit, an ETag, a length."""

    body = save({"a": torch.arange(3.0)})

    def do_HEAD(self) -> None:
        found = self.path == f"/{REPO}/resolve/main/model.safetensors"
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"abc"')
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server on this machine in the place of the hub, and an empty cache."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_hub_file_is_fetched_once_and_then_found_without_a_network(hub):
    (path,) = hub_files(REPO, ["model.safetensors"])
    assert torch.equal(read_state_dict(path)["a"], torch.arange(3.0))
    hub.shutdown()
    hub.server_close()
    assert hub_files(REPO, ["model.safetensors"]) == [path]


def test_offline_error_names_the_file_to_fetch_and_where_to_put_it(hub, monkeypatch):
    hub.shutdown()
    hub.server_close()
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    with pytest.raises(UserError) as caught:
        ResNet18(3)
    assert f"{REPO}/resolve/main/model.safetensors" in str(caught.value)
    assert "set arch.args.weights to the path of the file" in str(caught.value)
    assert not waits, "it fails at once, without retries"


def test_file_that_the_hub_does_not_have_is_an_error_of_one_line(hub):
    with pytest.raises(UserError, match=r"set arch\.args\.weights to the folder") as caught:
        hub_files(REPO, ["config.json", "model.safetensors"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken", b"\x80\x02}q\x00.", b"\x00" * 100])
def test_broken_file_is_said_to_be_broken(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_exactly(nn.Linear(2, 2), read_state_dict(path), path)
    assert caught.value.subject == str(path)


def test_truncated_file_is_said_to_be_broken(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(nn.Linear(50, 50).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match="not a readable weights file"):
        read_state_dict(path)


def test_file_with_code_in_it_is_not_run(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(UserError):
        read_state_dict(tmp_path / "module.pth")


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_state_dict_is_found_below_its_usual_keys(tmp_path, wrapper):
    layer = nn.Linear(2, 2)
    torch.save({wrapper: layer.state_dict(), "epoch": 3}, tmp_path / "wrapped.pth")
    assert read_state_dict(tmp_path / "wrapped.pth").keys() == {"weight", "bias"}


def test_old_files_without_batch_counters_load():
    norm = nn.BatchNorm1d(2)
    state = {k: v + 1 for k, v in norm.state_dict().items() if k != "num_batches_tracked"}
    load_exactly(norm, state, "old.pth")
    assert torch.equal(norm.running_mean, torch.ones(2))


def test_long_lists_of_tensors_are_cut_short():
    state = {f"x{i:02d}": torch.zeros(1) for i in range(25)}
    with pytest.raises(UserError, match=r"x19 and 5 more"):
        load_exactly(nn.ReLU(), state, "many.pth")


def test_folder_where_a_file_is_needed_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        local_path(str(tmp_path))
    assert local_path(str(tmp_path), folder=True) == tmp_path


def test_checkpoint_is_restored_without_fetching_pretrained_weights():
    args = {"label_dim": 3, "indim": 1}
    assert without_weights(LightCNN, args) == args
    assert without_weights(ResNet18, {**args, "weights": "hub"})["weights"] is None
    assert without_weights(ResNet18, args)["weights"] is None
