import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from torch import nn

from logger.tensorboard import TensorboardWriter, flat_config
from tests.full_disk import full_disk


@pytest.fixture
def log_dir(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def writer(log_dir):
    writer = TensorboardWriter(log_dir, enabled=True)
    yield writer
    writer.close()


def _read(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return accumulator.Reload()


def _scalars(folder, tag):
    return [(event.step, pytest.approx(event.value)) for event in _read(folder).Scalars(tag)]


def _text(folder, tag):
    return _read(folder).Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()


def _picture(folder, tag):
    (event,) = _read(folder).Images(tag)
    return event.step, Image.open(io.BytesIO(event.encoded_image_string))


def test_train_and_validation_share_a_tag_in_two_runs(writer, log_dir):
    writer.scalars("train", {"loss": 2.0}, 1)
    writer.scalars("valid", {"loss": torch.tensor(3.0), "score": np.float32(0.5)}, 1)
    writer.scalars("batch", {"learning_rate": 0.1}, 40)
    writer.flush()
    assert _scalars(log_dir / "train", "epoch/loss") == [(1, 2.0)]
    assert _scalars(log_dir / "valid", "epoch/loss") == [(1, 3.0)]
    assert _scalars(log_dir, "step/learning_rate") == [(40, 0.1)]


def test_numbers_that_are_not_finite_are_left_out(writer, log_dir):
    writer.scalars("valid", {"loss": float("nan"), "score": float("inf"), "accuracy": 0.5}, 1)
    writer.flush()
    assert _read(log_dir / "valid").Tags()["scalars"] == ["epoch/accuracy"]


def test_pictures_are_logged(writer, log_dir):
    writer.confusion(torch.tensor([[3, 1], [0, 2]]), ["Normal", "Adventitious"], 7)
    writer.examples(torch.rand(12, 1, 224, 224, dtype=torch.bfloat16), ["Normal"] * 12)
    writer.flush()
    step, picture = _picture(log_dir / "valid", "pictures/confusion_matrix")
    assert step == 7
    assert min(picture.size) > 200
    assert _picture(log_dir, "pictures/examples")[0] == 0


def test_a_resumed_run_hides_what_it_trains_anew(log_dir):
    before = TensorboardWriter(log_dir, enabled=True)
    for epoch in (1, 2, 3):
        before.scalars("train", {"loss": epoch}, epoch)
        before.scalars("batch", {"grad_norm": epoch}, epoch * 100)
    before.close()
    # Event files are read in the order of their names, which hold the second they were opened in.
    for path in log_dir.rglob("events*"):
        path.rename(path.with_name(path.name.replace("tfevents.", "tfevents.0", 1)))
    after = TensorboardWriter(log_dir, enabled=True, purge_epoch=3, purge_step=201)
    after.scalars("train", {"loss": 30}, 3)
    after.scalars("batch", {"grad_norm": 30}, 300)
    after.close()
    assert _scalars(log_dir / "train", "epoch/loss") == [(1, 1), (2, 2), (3, 30)]
    assert _scalars(log_dir, "step/grad_norm") == [(100, 1), (200, 2), (300, 30)]


class _Net(nn.Module):
    """Counts its calls in a buffer, so that a trace that leaves a mark is noticed."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.BatchNorm1d(2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.frozen(self.drop(self.norm(self.conv(x)).mean((2, 3))))


def test_the_graph_is_logged_and_leaves_no_mark_on_the_model(writer, log_dir):
    model = _Net().train()
    model.frozen.eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    writer.graph(model, torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    writer.flush()
    assert torch.equal(torch.rand(4), expected)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert any("conv" in node.name for node in _graph_nodes(log_dir))


def _graph_nodes(folder):
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    return GraphDef.FromString(_read(folder).Graph().SerializeToString()).node


def test_layers_are_one_picture_each_in_their_order(writer, log_dir):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2), nn.Sigmoid())
    for step in (0, 12):
        writer.layers(model, torch.rand(1, 1, 8, 8), step)
    writer.flush()
    tags = _read(log_dir).Tags()["images"]
    assert sorted(tags) == ["layers/01_0_Conv2d", "layers/02_1_ReLU", "layers/03_4_Sigmoid"]
    assert [event.step for event in _read(log_dir).Images(tags[0])] == [0, 12]


class _Untraceable(nn.Module):
    def forward(self, x):
        return {"logits": x, "names": "no tensor"}


def test_a_model_that_cannot_be_traced_is_a_warning(writer, caplog, capsys):
    model = _Untraceable()
    writer.graph(model, torch.zeros(1, 4))
    assert model.training
    assert "cannot be traced" in caplog.text
    assert capsys.readouterr().out == ""


def test_html_in_text_is_shown_and_not_obeyed(writer, log_dir):
    writer.text("note", "**bold** <script>alert(1)</script> & co\n\n```\na < b\n```\n\n<b>x</b>")
    writer.flush()
    text = _text(log_dir, "note")
    assert "<script>" not in text
    assert "<b>" not in text
    assert "**bold** &lt;script&gt;" in text
    assert "a < b" in text


def test_a_config_cannot_break_out_of_its_code_block(writer, log_dir):
    import markdown

    writer.config({"name": "```\n<img src=x>\n```", "path": log_dir, "file": "\udcff"})
    writer.flush()
    shown = markdown.markdown(_text(log_dir, "config"), extensions=["fenced_code"])
    assert shown.count("<pre>") == 1
    assert shown.endswith("</code></pre>")
    assert "<img" not in shown


CONFIG = {
    "name": "demo",
    "n_gpu": 1,
    "arch": {"type": "LightCNN", "args": {"label_dim": 3, "pretrained": True}},
    "data_loader": {"type": "RespDataLoader", "args": {"data_dir": "/data", "batch_size": 16, "input_dir": None}},
    "loss": {"type": "cross_entropy", "args": {"weight": [0.2, 0.5, 0.3]}},
    "trainer": {"epochs": 100, "save_dir": "saved/", "verbosity": 2, "monitor": "min val_loss", "tensorboard": True},
}
CONFIG["trainer"]["tensorboard_layers"] = True


def test_hparams_are_what_bears_on_the_result():
    assert flat_config(CONFIG) == {
        "arch": "LightCNN",
        "arch.label_dim": 3,
        "arch.pretrained": "true",
        "data_loader": "RespDataLoader",
        "data_loader.batch_size": 16,
        "data_loader.input_dir": "null",
        "loss": "cross_entropy",
        "loss.weight": "[0.2, 0.5, 0.3]",
        "trainer.epochs": 100,
        "trainer.monitor": "min val_loss",
    }


def test_hparams_are_one_row_a_run_and_open_no_further_run(writer, log_dir):
    writer.hparams(CONFIG, {"score": 0.7, "loss": float("nan")})
    writer.flush()
    assert sorted(p.name for p in log_dir.iterdir() if p.is_dir()) == ["train", "valid"]
    accumulator = _read(log_dir)
    content = accumulator.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["arch"].string_value == "LightCNN"
    assert start.hparams["data_loader.batch_size"].number_value == 16
    assert accumulator.Tags()["scalars"] == ["hparam/score"]


def test_a_full_disk_ends_the_log_with_one_warning_and_what_was_there_stays(writer, log_dir, caplog, capfd):
    writer.scalars("valid", {"loss": 1.0}, 1)
    writer.flush()
    size = max(path.stat().st_size for path in log_dir.rglob("events*"))
    with full_disk(size + 20):
        for epoch in (2, 3):
            writer.scalars("valid", {"loss": 1.0}, epoch)
            writer.confusion([[1]], ["Normal"], epoch)
            writer.examples(torch.zeros(1, 4), ["Normal"])
            writer.flush()
    writer.hparams(CONFIG, {"score": 0.7})
    writer.close()
    assert [(record.levelname, str(log_dir) in record.message) for record in caplog.records] == [("WARNING", True)]
    assert "File too large" in caplog.text
    assert "Traceback" not in capfd.readouterr().err
    assert _scalars(log_dir / "valid", "epoch/loss") == [(1, 1.0)]


def test_after_a_record_that_failed_none_is_written_even_if_there_is_space_again(writer, log_dir):
    with full_disk(150):
        for epoch in range(1, 9):
            writer._writers["valid"].add_scalar("epoch/loss", 1.0, epoch)
        writer.flush()
    (path,) = (log_dir / "valid").glob("events*")
    size = path.stat().st_size
    writer._writers["valid"].add_scalar("epoch/loss", 1.0, 9)
    writer.flush()
    assert path.stat().st_size == size
    assert len(_scalars(log_dir / "valid", "epoch/loss")) == 1


def test_a_log_folder_that_cannot_be_made_is_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    writer = TensorboardWriter(tmp_path / "file" / "run", enabled=True)
    writer.scalars("train", {"loss": 1.0}, 1)
    writer.flush()
    writer.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Not a directory" in caplog.text


def test_a_disabled_writer_writes_nothing_and_imports_nothing(tmp_path):
    code = f"""
import sys, torch
from logger.tensorboard import TensorboardWriter
writer = TensorboardWriter({str(tmp_path / "log")!r}, enabled=False)
writer.scalars("train", {{"loss": 1.0}}, 1)
writer.confusion([[1]], ["a"], 1)
writer.examples(torch.zeros(1, 4), ["a"])
writer.graph(torch.nn.Linear(2, 2), torch.zeros(1, 2)), writer.layers(torch.nn.ReLU(), torch.zeros(1, 2), 0)
writer.text("a", "b"), writer.config({{}}), writer.hparams({{}}, {{}}), writer.flush(), writer.close()
assert not {{"tensorboard", "matplotlib"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.iterdir()) == []
