"""Damaged and hostile checkpoints."""

from __future__ import annotations

import io
import shutil
import zipfile

import pytest
import torch
from hypothesis import strategies as st

from tests.fuzz.harness import answer, damaged, edited, edits, fuzz, values
from tests.tiny import tiny_config, tiny_run
from utils.checkpoint import load_checkpoint
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def whole(tiny_data, tmp_path_factory):
    """The bytes of a checkpoint of a network trained for one epoch of two."""
    trainer = tiny_run(tiny_data, tmp_path_factory.mktemp("saved"), lr_scheduler={"type": "OneCycleLR"})
    trainer.epochs = 1
    trainer.train()
    return (trainer.config.save_dir / "model_best.pth").read_bytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pth"


@pytest.fixture
def recording(tiny_data, tmp_path):
    """A folder with one recording."""
    (tmp_path / "wav").mkdir()
    shutil.copy(next((tiny_data / "BioCAS2022" / "test2022_wav").iterdir()), tmp_path / "wav")
    return tmp_path / "wav"


def refused(path, content: bytes, recording) -> bool:
    """Whether a checkpoint is refused; one that is not has to predict a recording."""
    from trainer.folder_prediction import predict_folder
    from trainer.trained import load_trained

    path.write_bytes(content)
    trained = answer(lambda: load_trained(path, CPU), path)
    if isinstance(trained, UserError):
        return True
    predicted = answer(lambda: predict_folder(trained, recording), path, recording)
    return isinstance(predicted, UserError)


def test_a_damaged_checkpoint_is_loaded_or_refused(whole, path, recording):
    fuzz("checkpoint", 150, damaged(whole), lambda content: refused(path, content, recording))


def test_a_checkpoint_cut_at_any_byte_is_refused(whole, path):
    def cut(size):
        path.write_bytes(whole[:size])
        return isinstance(answer(lambda: load_checkpoint(path), path), UserError)

    def check(size):
        assert cut(size)
        return True

    fuzz("checkpoint", 150, st.integers(0, len(whole) - 1), check)


def rezipped(whole: bytes, change) -> bytes:
    """The archive with its pickle changed and all checksums right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            new.writestr(info.filename, change(content) if info.filename.endswith("data.pkl") else content)
    return out.getvalue()


def test_a_damaged_pickle_with_right_checksums_is_loaded_or_refused(whole, path, recording):
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        pickled = archive.read(name)
    fuzz(
        "checkpoint",
        150,
        damaged(pickled),
        lambda content: refused(path, rezipped(whole, lambda _: content), recording),
    )


tensors = st.sampled_from(
    [
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(2, 64),
        torch.full((2, 64), float("nan")),
        torch.zeros(2, 64, dtype=torch.int64),
        torch.zeros(2, 64, dtype=torch.complex64),
        torch.zeros(2, 64, device="meta"),
        torch.zeros(2, 64).to_sparse(),
        torch.zeros(1).expand(10**12),
        torch.zeros(2, dtype=torch.float16),
        torch.nn.Parameter(torch.zeros(2)),
    ]
)


def plain(content):
    """Without what fixes the type of containers, so that any value may be put anywhere."""
    return {key: dict(value) if key == "state_dict" else value for key, value in content.items()}


def saved(content) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def test_a_checkpoint_may_hold_any_values(whole, path, recording):
    content = plain(torch.load(io.BytesIO(whole), weights_only=True))
    strategy = edits(content, st.one_of(values, tensors))
    fuzz("checkpoint", 150, strategy, lambda changes: refused(path, saved(edited(content, changes)), recording))


def test_a_run_goes_on_from_a_checkpoint_with_any_values_or_refuses(tiny_data, whole, path, tmp_path):
    from trainer.setup import make_trainer
    from utils.config import ConfigParser

    content = plain(torch.load(io.BytesIO(whole), weights_only=True))
    config = tiny_config(tiny_data, tmp_path / "saved", lr_scheduler={"type": "OneCycleLR"})
    for key in ("config", "version"):
        content.pop(key)

    def go_on():
        parser = ConfigParser(config, resume=path)
        parser.make_run_folders()
        try:
            trainer = make_trainer(parser, CPU)
        except UserError:
            parser.discard_run_folders()
            raise
        trainer.train()

    def check(changes):
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        path.write_bytes(saved({**edited(content, changes), "version": 1, "config": config}))
        result = answer(go_on, path, "lr_scheduler", "optimizer", "is not finite")
        if not isinstance(result, UserError):
            return False
        # With a learning rate of 1e300 it may go on, until its loss is not finite.
        assert "is not finite" in str(result) or not list((tmp_path / "saved").glob("models/tiny/*"))
        return True

    fuzz("checkpoint", 40, edits(content, st.one_of(values, tensors)), check)
