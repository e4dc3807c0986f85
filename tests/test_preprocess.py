"""preprocess.py as a user calls it."""

from __future__ import annotations

import http.server
import io
import json
import shutil
import threading
from functools import partial

import numpy as np
import pytest
import soundfile
import torch

import preprocess
from tests.full_disk import full_disk
from tests.processes import two_forks, two_processes
from utils.cli import run_script
from utils.lock import only_one


@pytest.fixture
def call(capsys):
    """Run preprocess.py on a data folder: exit status, output, and standard error without the progress bars."""

    def run(data_dir, *arguments):
        status = run_script(preprocess.main, preprocess.parser(), ["--data-dir", str(data_dir), *arguments])
        out, err = capsys.readouterr()
        lines = [line for line in err.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]
        return status, out, lines

    return run


def put(data_dir, stem="1_1.0_0_p1_1", events=((0, 400, "Normal"), (400, 900, "Wheeze")), rate=8000, channels=1):
    for folder in ("wav", "json"):
        (data_dir / folder).mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).normal(0, 0.01, (rate, channels))
    soundfile.write(data_dir / "wav" / f"{stem}.wav", samples, rate)
    content = {"record_annotation": "CAS"}
    content["event_annotation"] = [{"start": str(s), "end": str(e), "type": t} for s, e, t in events]
    (data_dir / "json" / f"{stem}.json").write_text(json.dumps(content))
    return data_dir / "wav" / f"{stem}.wav", data_dir / "json" / f"{stem}.json"


def written(data_dir):
    return sorted(path.name for path in data_dir.iterdir() if path.name not in ("wav", "json"))


def test_tables_and_store_are_written_and_the_counts_printed(tmp_path, call):
    put(tmp_path)
    status, out, _ = call(tmp_path, "--method", "stft", "--workers", "1")
    assert status == 0
    assert "train: 1 recordings of 1 patients" in out
    assert "Wheeze" in out
    assert "3 items computed" in out
    assert written(tmp_path) == ["processed_stft", "task1.csv", "task2.csv", "task2_filtered.csv"]
    assert "is complete already" in call(tmp_path, "--method", "stft")[1]


def test_a_store_of_a_number_of_shards(tmp_path, call):
    for number in range(3):
        put(tmp_path, f"1_1.0_0_p1_{number}")
    command = ("--method", "mel", "--mel-duration", "0.1", "--workers", "1")
    assert call(tmp_path, *command, "--shards", "2")[0] == 0
    shards = sorted(path.name for path in (tmp_path / "processed_mel").glob("task2-*.npy"))
    assert shards == ["task2-00000-of-00002-2.npy", "task2-00001-of-00002-1.npy"]
    assert "is complete already" in call(tmp_path, *command)[1]
    status, _, err = call(tmp_path, *command, "--shards", "3")
    assert (status, len(err)) == (1, 1)
    assert "has 2 shards of task 1, not 3 (--force makes it anew)" in err[0]


@pytest.mark.parametrize("make", [False, True])
def test_no_data_and_an_empty_folder_name_the_two_ways_on(tmp_path, call, make):
    folder = tmp_path / "data"
    if make:
        folder.mkdir()
    status, _, err = call(folder, "--method", "stft")
    assert status == 1
    assert len(err) == 1
    assert err[0].startswith(f"error: {folder}: ")
    assert "--download" in err[0]
    assert "--demo" in err[0]


SPOILS = {
    "annotation without audio": lambda wav, note: wav.unlink(),
    "recording without annotation": lambda wav, note: note.unlink(),
    "not a readable audio": lambda wav, note: wav.write_bytes(b"no audio"),
    "cut short": lambda wav, note: wav.write_bytes(wav.read_bytes()[:5000]),
    "holds no audio": lambda wav, note: soundfile.write(wav, np.zeros(0), 8000),
    "not a readable JSON": lambda wav, note: note.write_text("{"),
    "unknown label 'Cough'": lambda wav, note: note.write_text(note.read_text().replace("Wheeze", "Cough")),
    "ends at 1900 ms": lambda wav, note: note.write_text(note.read_text().replace("900", "1900")),
}


@pytest.mark.parametrize("what", SPOILS)
def test_a_bad_file_is_named_in_one_line_and_nothing_is_written(tmp_path, call, what):
    put(tmp_path, "1_1.0_0_p1_2")
    SPOILS[what](*put(tmp_path))
    status, _, err = call(tmp_path, "--method", "stft")
    assert status == 1
    assert len(err) == 2
    assert what in err[0]
    assert "1_1.0_0_p1_1" in err[0]
    assert "1 file cannot be used" in err[1]
    assert "--skip-bad" in err[1]
    assert written(tmp_path) == []


def test_all_bad_files_are_listed_in_one_go_and_skip_bad_goes_on_without_them(tmp_path, call):
    put(tmp_path, "1_1.0_0_p1_9")
    for number, spoil in enumerate(SPOILS.values()):
        spoil(*put(tmp_path, f"1_1.0_0_p1_{number}"))
    status, _, err = call(tmp_path)
    assert (status, len(err)) == (1, len(SPOILS) + 1)
    status, out, err = call(tmp_path, "--skip-bad", "--method", "mel", "--workers", "1")
    assert status == 0
    assert err[-1] == f"left out: {len(SPOILS)} files"
    assert "1 recordings" in out


def test_stereo_and_other_rates_work(tmp_path, call):
    put(tmp_path, "1_1.0_0_p1_1", channels=2)
    put(tmp_path, "1_1.0_0_p1_2", rate=44100)
    put(tmp_path, "1_1.0_0_p1_3")
    status, out, _ = call(tmp_path, "--method", "stft", "--workers", "1")
    assert status == 0
    assert "9 items computed" in out


@pytest.mark.parametrize(
    "arguments, what",
    [
        (["--tasks", "3"], "choose from 1, 2 and 1,2"),
        (["--method", "stft", "--mel-n-mels", "32"], "--mel-n-mels: is for the method mel"),
        (["--mel-n-mels", "32"], "--method mel"),
        (["--weights", "random"], "it goes with --method"),
        (["--limit", "3"], "it goes with --method"),
        (["--shards", "3"], "it goes with --method"),
        (["--url", "http://127.0.0.1/x.zip"], "it goes with --download"),
        (["--method", "stft", "--compute-on", "gpu"], "choose from auto, cpu, cuda"),
        (["--method", "stft", "--compute-on", "cuda:9"], "there is no cuda:9 here"),
        (["--method", "mel", "--mel-n-mels", "0"], "error: --mel-n-mels: "),
        (["--method", "mel", "--mel-f-max", "6000"], "error: --mel-f-min, --mel-f-max: 0.0 to 6000.0 Hz is no band"),
        (["--method", "stft", "--weights", "x.pth"], "--weights"),
        (["--method", "mel", "--mel-n-mels", "many"], "--mel-n-mels: is 'many' (expected a whole number)"),
        (["--method", "mel", "--mel-fit", "stretch"], "error: --mel-fit: there is no fit 'stretch' (choose from pad"),
        (["--method", "mel", "--mel-duration", "-1"], "error: --mel-duration: is too small"),
        (["--method", "ast", "--ast-frontend", "kald"], "did you mean kaldi"),
        (["--method", "ast_wav2vec", "--weights", "missing.pth"], "missing.pth"),
    ],
)
def test_a_wrong_flag_is_one_line(tmp_path, call, arguments, what):
    put(tmp_path)
    status, _, err = call(tmp_path, *arguments)
    assert (status, len(err)) == (1, 1)
    assert what in err[0]
    assert "processed_" not in str(written(tmp_path))


def test_an_unknown_method_is_wrong_usage(tmp_path, call):
    with pytest.raises(SystemExit) as caught:
        call(tmp_path, "--method", "fft")
    assert caught.value.code == 2


def test_demo_makes_a_set_to_start_from(tmp_path, call, monkeypatch):
    from data_loader import synthetic

    monkeypatch.setattr(
        synthetic, "write_synthetic", partial(synthetic.write_synthetic, patients=4, recordings_per_patient=2)
    )
    status, out, _ = call(tmp_path / "demo", "--demo")
    assert status == 0
    assert all(f"{split}: " in out for split in ("train", "inter", "intra"))


def test_download_fetches_unpacks_and_goes_on(tmp_path, call, tiny_data):
    served = tmp_path / "served"
    (served / "SPRSound-main").mkdir(parents=True)
    shutil.copytree(tiny_data / "BioCAS2022", served / "SPRSound-main" / "BioCAS2022")
    shutil.make_archive(str(served / "main"), "zip", served, "SPRSound-main")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/main.zip"
        status, out, _ = call(tmp_path / "data", "--download", "--url", url)
        server.shutdown()
    assert status == 0
    assert "train: 18 recordings of 6 patients" in out


def test_help_names_every_method_and_parameter():
    text = preprocess.parser().format_help()
    for word in (
        "--method",
        "--workers",
        "--limit",
        "--force",
        "--tasks",
        "--skip-bad",
        "--weights",
        "--download",
        "--demo",
    ):
        assert word in text
    assert "--ast-frontend" in text
    assert "--mel-n-mels" in text


def test_a_line_break_in_a_name_does_not_break_the_line(tmp_path, call):
    put(tmp_path)
    (tmp_path / "wav" / "a\nb.wav").write_bytes(b"")
    _, _, err = call(tmp_path)
    assert len(err) == 2


def test_download_and_demo_together_are_wrong_usage(tmp_path, call):
    with pytest.raises(SystemExit) as caught:
        call(tmp_path, "--download", "--demo")
    assert caught.value.code == 2


def test_tasks_may_be_written_with_a_space(tmp_path, call):
    put(tmp_path)
    assert call(tmp_path, "--tasks", "1, 2")[0] == 0


def test_nothing_but_bad_files_is_an_error_with_skip_bad_too(tmp_path, call):
    put(tmp_path)[0].write_bytes(b"")
    status, _, err = call(tmp_path, "--skip-bad", "--method", "stft")
    assert status == 1
    assert "there is nothing to go on with" in err[-1]
    assert written(tmp_path) == []


def test_recordings_without_labels_give_events_alone(tmp_path, call):
    _, note = put(tmp_path)
    content = json.loads(note.read_text())
    del content["record_annotation"]
    note.write_text(json.dumps(content))
    status, out, _ = call(tmp_path, "--method", "stft", "--workers", "1")
    assert status == 0
    assert "(no label)" in out
    assert "2 items computed" in out
    status, _, err = call(tmp_path, "--method", "mel", "--tasks", "2")
    assert (status, len(err)) == (1, 1)
    assert "no items of task 2" in err[0]


@pytest.mark.parametrize("blocked", ["task2.csv", "processed_stft.partial"])
def test_what_cannot_be_written_is_one_line(tmp_path, call, blocked):
    put(tmp_path)
    if blocked.endswith(".csv"):
        (tmp_path / blocked / "full").mkdir(parents=True)
    else:
        (tmp_path / blocked).write_text("a file where a folder should be")
    status, _, err = call(tmp_path, "--method", "stft")
    assert (status, len(err)) == (1, 1)
    assert "cannot be written" in err[0]
    assert not (tmp_path / "processed_stft").exists()


def everything(data_dir):
    return {path: path.read_bytes() for path in data_dir.rglob("*") if path.is_file()}


def test_a_disk_too_full_for_the_tables_leaves_the_old_ones(tmp_path, call):
    put(tmp_path)
    assert call(tmp_path)[0] == 0
    put(tmp_path, "1_1.0_0_p1_2")
    before = everything(tmp_path)
    with full_disk(100):
        status, _, err = call(tmp_path)
    assert (status, len(err)) == (1, 1)
    assert err[0].startswith(f"error: {tmp_path / 'task1.csv'}: cannot be written: File too large (")
    assert everything(tmp_path) == before


def test_a_disk_too_full_for_a_shard_leaves_the_old_store_and_what_is_finished(tmp_path, call, monkeypatch):
    monkeypatch.setattr("data_loader.jobs.SHARD_ITEMS", 2)
    put(tmp_path, "1_1.0_0_p1_1", events=[(0, 400, "Normal")])
    put(tmp_path, "1_1.0_0_p1_2", events=[(n, n + 400, "Normal") for n in range(5)])
    arguments = ("--method", "stft", "--workers", "1")
    assert call(tmp_path, *arguments, "--tasks", "2")[0] == 0
    before = everything(tmp_path)
    size = (tmp_path / "processed_stft" / "task2-00000-of-00001-2.npy").stat().st_size
    put(tmp_path, "1_1.0_0_p1_3")
    with full_disk(size + 100):
        status, _, err = call(tmp_path, *arguments, "--force")
    assert (status, len(err)) == (1, 1)
    assert ".npy: cannot be written: File too large (free some space and run again" in err[0]
    after = everything(tmp_path)
    assert {path: after[path] for path in before if "processed" in str(path)} == {
        path: content for path, content in before.items() if "processed" in str(path)
    }
    assert not [path for path in after if path.suffix in (".tmp", ".lock")]
    assert call(tmp_path, *arguments, "--force")[0] == 0
    assert written(tmp_path) == ["processed_stft", "task1.csv", "task2.csv", "task2_filtered.csv"]


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_each_process_of_torchrun_computes_on_a_gpu_of_its_own(monkeypatch, asked):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert preprocess.compute_device(asked) == "cuda:1"
    assert preprocess.compute_device("cuda:0") == "cuda:0"


def test_a_second_run_of_a_method_stops_and_names_the_lock(tmp_path, call):
    put(tmp_path)
    lock = tmp_path / "processed_stft.lock"
    with only_one(lock, ""):
        status, _, err = call(tmp_path, "--method", "stft")
        assert (status, len(err)) == (1, 1)
        assert err[0].startswith(f"error: {lock}: is locked: another process is at work")
        assert written(tmp_path) == [lock.name]
        assert call(tmp_path, "--method", "mel", "--mel-duration", "0.1")[0] == 0
    assert call(tmp_path, "--method", "stft")[0] == 0
    assert not list(tmp_path.glob("*.lock"))


def test_a_changed_recording_is_noticed_when_another_task_is_added(own_data, call):
    assert call(own_data, "--method", "mel", "--tasks", "1", "--workers", "1")[0] == 0
    path = next((own_data / "BioCAS2022" / "train2022_wav").iterdir())
    waveform, rate = soundfile.read(path)
    soundfile.write(path, waveform * 0.5, rate)
    status, _, err = call(own_data, "--method", "mel", "--tasks", "2")
    assert status == 1
    assert "other recordings or annotations of task 1" in err[0]


def test_ctrl_c_says_that_the_run_can_go_on(tmp_path, call, monkeypatch):
    put(tmp_path)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("data_loader.shards.encode", interrupted)
    status, _, err = call(tmp_path, "--method", "stft", "--workers", "1")
    assert status == 130
    assert err == ["stopped: the same command goes on with what is missing"]
    assert "processed_stft.partial" not in written(tmp_path)


def test_two_processes_write_the_store_that_one_writes(tmp_path, call, monkeypatch):
    for number in range(5):
        put(tmp_path, stem=f"{number}_1.0_0_p1_{number}", rate=8000 - 100 * number)
    monkeypatch.setattr("data_loader.jobs.SHARD_ITEMS", 2)
    assert call(tmp_path, "--method", "stft")[0] == 0
    alone = {path.name: path.read_bytes() for path in (tmp_path / "processed_stft").iterdir()}
    tables = (tmp_path / "task1.csv").read_bytes()
    shutil.rmtree(tmp_path / "processed_stft")

    done = two_processes("preprocess.py", "--data-dir", tmp_path, "--method", "stft")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("train: 5 recordings") == done.stdout.count("15 items computed") == 1
    assert (tmp_path / "task1.csv").read_bytes() == tables
    together = {path.name: path.read_bytes() for path in (tmp_path / "processed_stft").iterdir()}
    shards = [np.load(tmp_path / "processed_stft" / name) for name in sorted(together) if name.startswith("task1")]
    assert sum(map(len, shards)) == 10
    one_shard = np.concatenate(shards)
    assert np.array_equal(
        one_shard, np.concatenate([np.load(io.BytesIO(alone[n])) for n in sorted(alone) if "task1" in n])
    )


def test_a_bad_file_stops_all_processes_with_one_line(tmp_path):
    for number in range(4):
        put(tmp_path, stem=f"{number}_1.0_0_p1_{number}")
    (tmp_path / "wav" / "1_1.0_0_p1_1.wav").write_bytes(b"no audio")
    statuses, printed = two_forks(tmp_path, "preprocess", "--data-dir", tmp_path, "--method", "stft")
    assert all(statuses)
    assert printed.count("error: ") == printed.count("1_1.0_0_p1_1.wav: is not a readable audio file") == 1
    assert not (tmp_path / "processed_stft").exists()
