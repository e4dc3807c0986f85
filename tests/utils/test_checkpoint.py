from __future__ import annotations

import io
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from tests.full_disk import full_disk
from utils.checkpoint import load_checkpoint, load_weights, pack_checkpoint, save_checkpoint
from utils.errors import UserError


def content(**changes):
    state = nn.Linear(20, 20).state_dict()
    return {"config": {"name": "x"}, "epoch": 3, "state_dict": state, "classes": ["a"], "input": {}} | changes


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, content())
    return path


class Code:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    given = content(history=[{"loss": 0.5}], best=float("inf"), nothing=None)
    save_checkpoint(tmp_path / "deep" / "c.pth", given)
    back = load_checkpoint(tmp_path / "deep" / "c.pth")
    assert back.pop("version") == 1
    assert all(torch.equal(back["state_dict"][name], value) for name, value in given["state_dict"].items())
    assert {k: v for k, v in back.items() if k != "state_dict"} == {
        k: v for k, v in given.items() if k != "state_dict"
    }


def test_a_packed_checkpoint_does_not_change_with_the_model(tmp_path):
    given = content()
    weight = given["state_dict"]["weight"].clone()
    packed = pack_checkpoint(given)
    given["state_dict"]["weight"].zero_()
    save_checkpoint(tmp_path / "c.pth", packed)
    assert torch.equal(load_checkpoint(tmp_path / "c.pth")["state_dict"]["weight"], weight)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")])
def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(path, monkeypatch, error):
    before = path.read_bytes()

    def fail(value, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match="cannot be written"):
        save_checkpoint(path, content())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("pack", [dict, pack_checkpoint])
def test_a_full_disk_is_one_error_with_its_reason_and_leaves_the_old_checkpoint(path, pack):
    before = path.read_bytes()
    larger = pack(content(state_dict=nn.Linear(200, 200).state_dict()))
    for size in (0, 100, 50_000):
        with full_disk(size), pytest.raises(UserError) as caught:
            save_checkpoint(path, larger)
        assert (caught.value.subject, caught.value.what) == (str(path), "cannot be written: File too large")
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]


def test_a_file_cut_anywhere_is_one_error(path):
    whole = path.read_bytes()
    for size in [*range(6), 50, 100, 500, *range(1000, len(whole), 500), len(whole) - 30, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a checkpoint, or is damaged"):
            load_checkpoint(path)


def test_a_changed_bit_anywhere_in_the_weights_is_found(path):
    whole = path.read_bytes()
    weight = load_checkpoint(path)["state_dict"]["weight"].numpy().tobytes()
    start = whole.index(weight)
    for place in range(start, start + len(weight), 150):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match="damaged"):
            load_checkpoint(path)


def test_code_in_a_file_is_never_run(path, tmp_path):
    target = tmp_path / "ran"
    for data in (saved(content(extra=Code(target))), saved(Code(target))):
        path.write_bytes(data)
        with pytest.raises(UserError, match="could run code"):
            load_checkpoint(path)
    for data in (
        pickle.dumps(Code(target)),
        saved(content(extra=Code(target)), _use_new_zipfile_serialization=False),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match="not a checkpoint"):
            load_checkpoint(path)
    assert not target.exists()


def test_what_is_no_checkpoint_is_one_error(path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "hello")
    others = [b"", b"hello\n", b'{"a": 1}', b"\x80\x02.", archive.getvalue(), saved([1, 2]), saved(torch.zeros(3))]
    others += [saved({"state_dict": {}}), saved(nn.Linear(2, 2).state_dict())]
    for data in others:
        path.write_bytes(data)
        with pytest.raises(UserError, match="not a checkpoint"):
            load_checkpoint(path)
    with pytest.raises(UserError, match="no such checkpoint"):
        load_checkpoint(path.parent)
    with pytest.raises(UserError, match="no such checkpoint"):
        load_checkpoint(path.parent / "nothing.pth")


def test_a_checkpoint_of_another_version_says_so(path):
    path.write_bytes(saved(content(version=2)))
    with pytest.raises(UserError, match="is of version 2"):
        load_checkpoint(path)


def test_weights_of_another_network_are_listed_and_leave_the_model_as_it_was(path):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {
        "0.weight": torch.zeros(2, 3),
        "0.bias": torch.zeros(5),
        "other": torch.zeros(1),
        "1.bias": torch.zeros(2),
    }
    with pytest.raises(UserError) as caught:
        load_weights(model, state, path)
    for part in ("no 1.weight", "unknown other", "0.bias is (5,), not (2,)"):
        assert part in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_long_list_of_misfits_stays_one_readable_line(path):
    with pytest.raises(UserError, match="and 95 more") as caught:
        load_weights(nn.Identity(), {f"layer{n}": torch.zeros(1) for n in range(100)}, path)
    assert len(str(caught.value)) < 400


def test_a_refusal_names_the_code_that_would_have_run(path):
    path.write_bytes(saved(content(extra=Code("x"))))
    with pytest.raises(UserError, match=r"it holds posix\.mkdir, and objects other than tensors could run code"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("epoch", "3", "its epoch is not a whole number"),
        ("classes", [1], "its classes is not a list of strings"),
        ("config", {"a": torch.zeros(1)}, "its config is no plain description: it holds a Tensor"),
        ("config", {"a": float("nan")}, "its config is no plain description"),
        ("input", {1: 2}, "its input is no plain description"),
        ("state_dict", {"w": 1.0}, "its state_dict holds other things"),
        ("state_dict", {"w": torch.zeros(2, device="meta")}, "its state_dict holds other things"),
        ("state_dict", {"w": torch.zeros(1).expand(10**12)}, "its state_dict holds other things"),
        ("state_dict", {"w": torch.zeros(2, dtype=torch.complex64)}, "its state_dict holds other things"),
        ("version", torch.zeros(2), "is of version"),
    ],
)
def test_a_part_of_another_kind_is_named(path, key, value, what):
    path.write_bytes(saved({"version": 1, **content(**{key: value})}))
    with pytest.raises(UserError, match=what):
        load_checkpoint(path)


def test_a_part_larger_than_the_file_is_refused_unread(path):
    whole = path.read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb, zipfile.ZipFile(io.BytesIO(whole)) as old:
        for info in old.infolist():
            bomb.writestr(info.filename, old.read(info))
        bomb.writestr("archive/data/99", bytes(10_000_000))
    with pytest.raises(UserError, match="not a checkpoint, or is damaged"):
        load_checkpoint(path)


def test_a_config_that_repeats_itself_without_end_is_refused(path):
    value = [0]
    for _ in range(40):
        value = [value, value]
    path.write_bytes(saved({"version": 1, **content(config={"a": value})}))
    with pytest.raises(UserError, match="its config is no plain description: it holds more than"):
        load_checkpoint(path)
