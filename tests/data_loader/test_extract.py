"""Feature stores: complete or not there, and the same however they came about."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from data_loader import jobs as jobs_module
from data_loader import shards
from data_loader.audio import cut_event, read_audio
from data_loader.encoding import decode
from data_loader.extract import extract
from data_loader.features import methods, register_feature
from data_loader.features.wav2vec_network import build_network
from data_loader.store import FeatureStore, read_meta
from data_loader.store_index import read_index
from data_loader.tables import build_tables, read_table, write_tables
from utils.errors import UserError


def run(data_dir, method="stft", tasks=(1, 2), **options):
    tables = build_tables(data_dir)
    feature = methods[method]
    params = feature.checked(options.pop("params", {}), "--param")
    return extract(data_dir, feature, params, {task: tables.of(task) for task in tasks}, tables.digests, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(jobs_module, "SHARD_ITEMS", 7)


def test_an_item_is_the_feature_of_its_cut_audio(tiny_data):
    store = FeatureStore(tiny_data / "processed_stft")
    table = read_table(tiny_data, 1)
    places = store.locate(table, 1)
    assert (places >= 0).all()
    for row in (0, 5, len(table) - 1):
        event = table.iloc[row]
        recording, rate = read_audio(tiny_data / event["path"])
        alone = methods["stft"](torch.from_numpy(cut_event(recording, rate, event["start_ms"], event["end_ms"])), rate)
        stored = decode(torch.from_numpy(store.gather(places[[row]])))[0]
        torch.testing.assert_close(stored, alone, atol=0.5 / 255 + 1e-3, rtol=0)


def test_any_numpy_user_can_open_a_shard(tiny_data):
    folder = tiny_data / "processed_stft"
    meta = json.loads((folder / "meta.json").read_text())
    shards = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("task2-*.npy"))]
    assert sum(len(shard) for shard in shards) == meta["items"]["2"]
    assert list(shards[0].shape[1:]) == meta["shape"]
    assert str(shards[0].dtype) == meta["dtype"]
    assert meta["method"] == "stft"


def test_repeated_channels_are_stored_once_and_read_as_the_shape_says(own_data):
    run(own_data, "wavelet", tasks=(2,))
    store = FeatureStore(own_data / "processed_wavelet")
    stored = torch.from_numpy(store.gather(store.locate(read_table(own_data, 2), 2)[:2]))
    assert stored.shape == (2, 1, 224, 224)
    assert decode(stored, store.meta.repeats).shape == (2, *store.meta.shape) == (2, 3, 224, 224)


def test_the_number_of_workers_changes_nothing(own_data, small_shards):
    folder, _ = run(own_data, force=True)
    alone = contents(folder)
    run(own_data, force=True, workers=2)
    assert contents(folder) == alone


def test_an_interrupted_run_leaves_no_store_and_goes_on_where_it_stopped(own_data, small_shards, monkeypatch):
    folder, total = run(own_data, force=True)
    undisturbed = contents(folder)
    shutil.rmtree(folder)
    saved = shards.atomic_write_npy
    written = []

    def failing_save(*args):
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(args)
        return saved(*args)

    monkeypatch.setattr(shards, "atomic_write_npy", failing_save)
    with pytest.raises(UserError, match="No space left"):
        run(own_data)
    assert not folder.exists()
    monkeypatch.setattr(shards, "atomic_write_npy", saved)
    finished = sum(len(np.load(path)) for path in folder.with_name("processed_stft.partial").glob("*.npy"))
    _, computed = run(own_data)
    assert 0 < finished < total
    assert computed == total - finished
    assert contents(folder) == undisturbed
    assert not folder.with_name("processed_stft.partial").exists()


def test_a_complete_store_is_left_alone(own_data):
    before = contents(own_data / "processed_stft")
    _, computed = run(own_data)
    assert computed == 0
    assert contents(own_data / "processed_stft") == before


def test_a_changed_parameter_is_said_and_force_makes_the_store_anew(own_data):
    run(own_data, "mel", tasks=(2,), params={"duration": 1.0})
    with pytest.raises(UserError, match=r"n_mels 64, now 32.*--force"):
        run(own_data, "mel", tasks=(2,), params={"duration": 1.0, "n_mels": 32})
    run(own_data, "mel", tasks=(2,), params={"duration": 1.0, "n_mels": 32}, force=True)
    assert read_meta(own_data / "processed_mel").shape[1] == 32


def test_a_changed_recording_is_said(own_data):
    path = own_data / read_table(own_data, 1)["path"][0]
    waveform, rate = soundfile.read(path)
    soundfile.write(path, waveform * 0.5, rate)
    with pytest.raises(UserError, match=r"other recordings or annotations.*--force"):
        run(own_data)


def test_another_limit_is_said(own_data):
    run(own_data, "mel", limit=2, params={"duration": 1.0})
    with pytest.raises(UserError, match="made with --limit 2, now there is --limit 3"):
        run(own_data, "mel", limit=3, params={"duration": 1.0})
    with pytest.raises(UserError, match="made with --limit 2, now there is no --limit"):
        run(own_data, "mel", params={"duration": 1.0})


def test_a_limit_above_the_number_of_recordings_is_none(own_data):
    _, computed = run(own_data, limit=10_000)
    assert computed == 0


def test_a_limit_takes_the_same_recordings_for_both_tasks(own_data):
    run(own_data, "mel", tasks=(1,), limit=5, params={"duration": 1.0})
    folder, _ = run(own_data, "mel", tasks=(2,), limit=5, params={"duration": 1.0})
    index = read_index(folder, read_meta(folder).shards)
    events, recordings = (set(index[index["task"] == task]["wav_name"]) for task in (1, 2))
    assert len(recordings) == 5
    assert events <= recordings


def test_a_second_task_is_added_to_a_store(own_data):
    shutil.rmtree(own_data / "processed_stft")
    run(own_data, tasks=(1,))
    first = contents(own_data / "processed_stft")
    _, computed = run(own_data, tasks=(2,))
    assert computed == len(read_table(own_data, 2))
    both = contents(own_data / "processed_stft")
    shards = {name for name in first if name.startswith("task")}
    assert all(both[name] == first[name] for name in shards)
    assert set(read_meta(own_data / "processed_stft").items) == {"1", "2"}


def test_shards_that_were_cut_with_other_tasks_are_not_taken(own_data, small_shards, monkeypatch):
    folder, _ = run(own_data, force=True)
    both = contents(folder)
    shutil.rmtree(folder)
    run(own_data, tasks=(1,))

    def stopped(*args):
        raise KeyboardInterrupt

    # Task 2 alone is all computed, and then the store of task 1 goes away.
    with monkeypatch.context() as patch:
        patch.setattr("data_loader.extract.write_index", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(own_data)
    shutil.rmtree(folder)
    run(own_data)
    assert contents(folder) == both


def test_a_store_with_nothing_missing_but_its_name_is_not_computed_again(own_data, monkeypatch):
    before = contents(own_data / "processed_stft")
    shutil.rmtree(own_data / "processed_stft")

    def stopped(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_loader.extract._swap", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(own_data)
    folder, computed = run(own_data)
    assert computed == 0
    assert contents(folder) == before
    assert not folder.with_name("processed_stft.partial").exists()


def test_a_folder_whose_removal_was_killed_is_not_taken_for_a_store(own_data, monkeypatch):
    folder = own_data / "processed_stft"
    before = contents(folder)
    partial = folder.with_name("processed_stft.partial")

    def killed(path, **options):
        if path.exists():
            for file in (path / "plan.json", *path.glob("task1-*.npy")):
                file.unlink(missing_ok=True)
            raise KeyboardInterrupt

    # The old store when a new one is in place, which somebody removes, and shards that are of no more use.
    for case in ("old", "partial"):
        if case == "partial":
            folder.rename(partial)
            (partial / "plan.json").write_text("{}")
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", killed)
            with pytest.raises(KeyboardInterrupt):
                run(own_data, force=True)
        shutil.rmtree(folder, ignore_errors=True)
        run(own_data)
        assert contents(folder) == before
        assert not list(own_data.glob("*.old")) + list(own_data.glob("*.partial"))


def test_a_feature_that_is_not_finite_is_refused_with_the_name_of_its_file(own_data):
    @register_feature("not_finite")
    def not_finite(waveforms, rate, lengths):
        return waveforms[:, :4] / 0.0

    try:
        with pytest.raises(UserError, match=r"\.wav.*not finite"):
            run(own_data, "not_finite")
    finally:
        del methods._items["not_finite"]
    assert not (own_data / "processed_not_finite").exists()


def test_what_a_killed_run_was_writing_does_not_get_into_the_store(own_data, small_shards, monkeypatch):
    folder, _ = run(own_data, force=True)
    shutil.rmtree(folder)
    saved, written = shards.atomic_write_npy, []

    def interrupted_save(path, array):
        written.append(saved(path, array))
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(shards, "atomic_write_npy", interrupted_save)
    with pytest.raises(KeyboardInterrupt):
        run(own_data)
    (folder.with_name("processed_stft.partial") / ".0123456789abcdef.tmp").write_bytes(b"half a shard")
    monkeypatch.setattr(shards, "atomic_write_npy", saved)
    run(own_data)
    assert {path.suffix for path in folder.iterdir()} == {".npy", ".csv", ".json"}


def test_a_run_that_fails_before_its_first_shard_leaves_nothing(own_data, monkeypatch):
    def failing_save(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "atomic_write_npy", failing_save)
    before = sorted(own_data.iterdir())
    with pytest.raises(UserError, match="No space left"):
        run(own_data, "mel")
    assert sorted(own_data.iterdir()) == before


def test_a_run_killed_while_it_put_the_new_store_in_place_is_mended(own_data):
    folder = own_data / "processed_stft"
    before = contents(folder)
    folder.rename(own_data / "processed_stft.old")
    assert run(own_data) == (folder, 0)
    assert contents(folder) == before
    assert not (own_data / "processed_stft.old").exists()


def test_a_store_that_is_a_link_is_replaced_and_its_files_stay(own_data, tmp_path):
    folder, elsewhere = own_data / "processed_stft", tmp_path / "other disk"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    for _ in range(2):
        run(own_data, tasks=(2,), force=True)
    assert not folder.is_symlink()
    assert (elsewhere / "meta.json").exists()
    assert not (own_data / "processed_stft.old").is_symlink()


def test_a_folder_that_is_no_store_is_not_taken_for_one(own_data):
    (own_data / "processed_mel").mkdir()
    with pytest.raises(UserError, match=r"lacks meta.json.*--force"):
        run(own_data, "mel")


def test_recordings_that_do_not_fit_into_memory_together_give_the_same_features(own_data, monkeypatch):
    folder, _ = run(own_data, force=True)
    names = sorted(path.name for path in folder.glob("task*.npy"))
    together = [np.load(folder / name) for name in names]
    monkeypatch.setattr(shards, "MOST_SAMPLES", 100_000)
    run(own_data, force=True)
    for name, expected in zip(names, together, strict=True):
        # Batches are other ones, and so may be the last bit of a value on the border between two steps.
        assert np.abs(np.load(folder / name).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("method", ["stft", "mel"])
def test_a_recording_of_another_rate_has_the_features_that_it_has_at_the_rate_of_the_first(own_data, method):
    table = read_table(own_data, 2)
    path = own_data / table["path"].iloc[-1]

    def feature():
        write_tables(build_tables(own_data), own_data)
        folder, _ = run(own_data, method, tasks=(1, 2), force=True)
        store = FeatureStore(folder)
        own = [store.gather(store.locate(read_table(own_data, task).iloc[-1:], task))[0] for task in (1, 2)]
        return store.meta.rate, [item.astype(np.float32) for item in own]

    rate, before = feature()
    waveform, _ = soundfile.read(path)
    soundfile.write(path, resample_poly(waveform, 2, 1), 16000)
    assert (rate, feature()[0]) == (8000, 8000)
    for then, now in zip(before, feature()[1], strict=True):
        # Near half the rate, the filters of the resampling leave their marks.
        assert np.corrcoef(then.ravel(), now.ravel())[0, 1] > 0.99
        assert np.abs(then - now).mean() < 0.02 * np.ptp(then)


def test_recordings_of_an_unusual_rate_have_their_own_shape(tmp_path):
    for folder in ("wav", "json"):
        (tmp_path / folder).mkdir()
    soundfile.write(tmp_path / "wav" / "1_1.0_0_p1_1.wav", np.random.default_rng(0).normal(0, 0.01, 11025), 11025)
    note = {"record_annotation": "Normal", "event_annotation": []}
    (tmp_path / "json" / "1_1.0_0_p1_1.json").write_text(json.dumps(note))
    folder, computed = run(tmp_path, "mel", tasks=(2,))
    assert computed == 1
    assert list(FeatureStore(folder).meta.shape) == [1, 64, 1 + 8 * 11025 // 110]


def test_the_record_says_what_precision_auto_stood_for(own_data, tmp_path, monkeypatch):
    weights = tmp_path / "small.pth"
    torch.save(build_network(encoder_embed_dim=64, encoder_num_heads=1, encoder_num_layers=8).state_dict(), weights)
    here = {"tasks": (2,), "params": {"weights": str(weights)}, "limit": 1}
    settle = "data_loader.features.feature.choose_precision"
    monkeypatch.setattr(settle, lambda precision, device: "fp32" if precision == "auto" else precision)
    folder, _ = run(own_data, "ast_wav2vec", **here)
    assert read_meta(folder).params == {"weights": str(weights), "precision": "fp32"}
    # Where auto stands for something else, the store is not taken for what would be computed, unless asked for.
    monkeypatch.setattr(settle, lambda precision, device: "bf16" if precision == "auto" else precision)
    with pytest.raises(UserError, match="precision 'fp32', now 'bf16'"):
        run(own_data, "ast_wav2vec", **here)
    assert run(own_data, "ast_wav2vec", **here | {"params": here["params"] | {"precision": "fp32"}})[1] == 0
