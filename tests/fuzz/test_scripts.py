"""The three scripts on damaged files: one line and a status, and nothing half-written."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

from tests.fuzz.harness import bounded, damaged, edited, edits, fuzz, values
from tests.tiny import run, tiny_config, tiny_run, write_config

MEL = ["--method", "mel", "--mel-n-mels", "8", "--mel-duration", "0.1", "--workers", "1"]


pytestmark = pytest.mark.usefixtures("own_sigterm")


@pytest.fixture
def failed(capsys):
    """Runs a script within the bounds; whether it failed, which has to be said in one line and leave no new file."""

    def check(folder: Path, name: str, *argv: object) -> bool:
        before = tree(folder)
        capsys.readouterr()
        with bounded():
            status = run(name, *argv)
        # Progress bars go back to the start of their line.
        lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert status in (0, 1)
        assert not [line for line in lines if "Traceback" in line or "Warning" in line]
        assert len(errors) == status, lines
        assert len(lines) <= 60
        if status:
            assert lines[-1] == errors[0]
            assert len(errors[0]) <= 1010
            assert tree(folder) == before
        else:
            assert not [path for path in tree(folder) - before if path.endswith((".tmp", ".partial", ".old"))]
        return bool(status)

    return check


def tree(folder: Path) -> set[str]:
    """All files below; an empty folder is nothing half-written."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_preprocessing_of_damaged_data(tiny_data, tmp_path, failed):
    source = tiny_data / "BioCAS2022"
    stems = sorted(path.stem for path in (source / "train2022_wav").iterdir())[:4]
    whole = {f"wav/{stem}.wav": (source / "train2022_wav" / f"{stem}.wav").read_bytes() for stem in stems}
    whole |= {f"json/{stem}.json": (source / "train2022_json" / f"{stem}.json").read_bytes() for stem in stems}
    one = st.sampled_from(sorted(whole))
    odd_names = st.sampled_from(
        ["a b", "=1+1", "\x1b[31m", "x" * 200, "..", "1_0.4_0_p4_7", "1_0.4_0_p9_7", "-rf", "a\nb", "%s"]
    )
    damage = st.one_of(
        one.flatmap(lambda name: st.tuples(st.just("write"), st.just(name), damaged(whole[name], header=60))),
        st.tuples(st.just("rename"), one, odd_names),
        st.tuples(st.sampled_from(["remove", "folder", "pipe"]), one, st.none()),
    )
    folder = tmp_path / "data"

    def check(drawn):
        changes, skip = drawn
        shutil.rmtree(folder, ignore_errors=True)
        for name, content in whole.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        for kind, name, value in changes:
            path = folder / name
            if kind == "write":
                path.write_bytes(value)
                continue
            if kind == "rename" and path.exists():
                path.rename(path.with_name(value + path.suffix))
            path.unlink(missing_ok=True)
            if kind == "folder":
                path.mkdir()
            elif kind == "pipe":
                os.mkfifo(path)
        argv = ["--data-dir", folder, *MEL] + (["--skip-bad"] if skip else [])
        return failed(folder, "preprocess", *argv)

    paths = st.lists(damage, min_size=1, max_size=2, unique_by=lambda change: change[1])
    fuzz("preprocess.py", 20, st.tuples(paths, st.booleans()), check)


def test_training_with_damaged_files(own_data, tmp_path, failed):
    place = tmp_path / "place"
    config = tiny_config(own_data, place / "saved", trainer__epochs=1)
    path = write_config(tmp_path / "config.json", config)
    files = [
        path,
        own_data / "task1.csv",
        own_data / "processed_stft" / "meta.json",
        own_data / "processed_stft" / "index.npy",
    ]
    whole = {file: file.read_bytes() for file in files}
    one = st.sampled_from(files).flatmap(lambda file: st.tuples(st.just(file), damaged(whole[file], header=200)))
    keep = {("trainer", "save_dir"), ("trainer", "epochs"), ("data_loader", "args", "num_workers")}
    changed = edits(config).map(lambda changes: [change for change in changes if change.path not in keep])
    other = changed.map(lambda changes: (path, json.dumps(edited(config, changes)).encode()))

    def check(drawn):
        file, content = drawn
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name, bytes_ in whole.items():
            name.write_bytes(content if name == file else bytes_)
        result = failed(place, "train", "-c", path)
        if result:
            shutil.rmtree(place / "saved", ignore_errors=True)
        return result

    fuzz("train.py", 25, st.one_of(one, other), check)


def test_testing_with_damaged_files(tiny_data, tmp_path, failed):
    trainer = tiny_run(tiny_data, tmp_path / "saved", trainer__epochs=1)
    trainer.train()
    place = tmp_path / "place"
    wav = place / "wav"
    content = (trainer.config.save_dir / "model_best.pth").read_bytes()
    plain = torch.load(io.BytesIO(content), weights_only=True)
    plain["state_dict"] = dict(plain["state_dict"])
    recording = next((tiny_data / "BioCAS2022" / "test2022_wav").iterdir()).read_bytes()

    def saved(changes):
        out = io.BytesIO()
        torch.save(edited(plain, changes), out)
        return out.getvalue()

    checkpoints = st.one_of(damaged(content), edits(plain, values), st.just(None))
    audio = st.one_of(damaged(recording, header=60), st.just(None))
    how = st.sampled_from(["wav", "test", "valid"])

    def check(drawn):
        checkpoint, sound, kind = drawn
        shutil.rmtree(place, ignore_errors=True)
        wav.mkdir(parents=True)
        (place / "c.pth").write_bytes(saved(checkpoint) if isinstance(checkpoint, list) else checkpoint or content)
        (wav / "a.wav").write_bytes(sound or recording)
        argv = (
            ["--wav", wav, "--out", place / "p.json"] if kind == "wav" else ["--split", kind, "--data-dir", tiny_data]
        )
        return failed(place, "test", "-r", place / "c.pth", *argv)

    fuzz("test.py", 25, st.tuples(checkpoints, audio, how), check)
