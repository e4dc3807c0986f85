"""AudioDataset and AudioDataLoader: batches of any labelled audio."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.functional import resample

from data_loader.audio_data_loader import AudioDataLoader
from data_loader.audio_dataset import AudioDataset
from data_loader.excerpt import read_span
from data_loader.folder import file_groups, group_batches
from data_loader.frontend import Frontend, InputSpec
from tests import sounds
from utils.errors import UserError

MEL = {"method": "mel", "n_mels": 16, "duration": 0.5, "fit": "pad"}


@pytest.fixture(scope="module")
def urban(tmp_path_factory):
    return sounds.write_urbansound8k(tmp_path_factory.mktemp("urban"))


@pytest.fixture(scope="module")
def fma(tmp_path_factory):
    return sounds.write_fma(tmp_path_factory.mktemp("fma"))


def loader(data_dir, adapter="urbansound8k", **options):
    return AudioDataLoader(str(data_dir), adapter, **{"batch_size": 8, "rate": 8000} | options)


def groups_of(audio, items):
    return set(audio.dataset.groups[items])


def test_rates_channels_bit_depths_and_lengths_may_be_mixed(urban):
    dataset = AudioDataset(urban, "urbansound8k", rate=8000)
    kinds = set()
    for index, path in enumerate(dataset.table["path"]):
        samples, rate = soundfile.read(urban / path, always_2d=True)
        info = soundfile.info(urban / path)
        kinds.add((rate, info.channels, info.subtype))
        expected = resample(torch.tensor(samples.mean(axis=1), dtype=torch.float32), rate, 8000)
        torch.testing.assert_close(dataset[index][0], expected, atol=1e-6, rtol=0)
    assert len(kinds) == 4


def test_two_channels_are_those_of_the_file_or_the_one_repeated(urban):
    dataset = AudioDataset(urban, "urbansound8k", rate=44100, channels=2)
    stereo, mono = (int(np.flatnonzero(dataset.table["fold"] == fold)[0]) for fold in ("4", "2"))
    first, second = dataset[stereo][0]
    torch.testing.assert_close(second, first / 2, atol=1e-4, rtol=0)
    first, second = dataset[mono][0]
    assert torch.equal(first, second)
    assert first.abs().max() > 0.1


def test_a_file_of_too_few_channels_is_an_error_and_of_more_the_first_are_taken(tmp_path):
    path = sounds.tone(tmp_path / "a.wav", channels=3)
    whole, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(read_span(path, channels=2)[0], whole.T[:2])
    with pytest.raises(UserError, match="has 3 channels, of 4 that are wanted"):
        read_span(path, channels=4)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_part_of_a_file_is_read_and_no_more(tmp_path, monkeypatch, subtype, channels):
    path = sounds.tone(tmp_path / "a.wav", 4.0, 8000, channels, subtype=subtype)
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)
    asked, read = [], soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, frames=-1, **k: asked.append(frames) or read(self, frames, **k)
    )
    samples, rate = read_span(path, 1.5, 1.75)
    assert rate == 8000
    np.testing.assert_allclose(samples, whole[12000:14000].mean(axis=1), atol=1e-7)
    assert len(read_span(path, 3.0, 9.0)[0]) == 8000
    assert len(read_span(path, 1.0, None, seconds=0.5)[0]) == 4000
    assert asked == [2000, 8000, 4000]
    with pytest.raises(UserError, match=r"ends at 4.000 s, before its sound at 4.5 s"):
        read_span(path, 4.5, 5.0)


def test_what_the_duration_cuts_is_what_is_cut_after_resampling(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * 44100)
    for name in ("x/a.wav", "y/b.wav"):
        (tmp_path / name).parent.mkdir()
        soundfile.write(tmp_path / name, noise, 44100)
    cut, whole = (AudioDataset(tmp_path, "folders", duration=d, rate=16000)[0][0] for d in (1.0, None))
    assert len(cut) == 16000
    torch.testing.assert_close(cut, whole[:16000], atol=1e-6, rtol=0)


def test_the_validation_may_be_a_fold_of_the_data_set(urban):
    audio = loader(urban, validation_split={"column": "fold", "value": 3})
    assert set(audio.dataset.table["fold"].iloc[audio.valid_indices]) == {"3"}
    assert len(audio.train_indices) + len(audio.valid_indices) == 30
    assert "3" not in set(audio.dataset.table["fold"].iloc[audio.train_indices])


def test_a_fold_may_be_the_test_set(urban):
    audio = loader(urban, validation_split={"column": "fold", "value": 9}, test_fold=10)
    assert set(audio.dataset.table["fold"]) == {str(fold) for fold in range(1, 10)}
    assert set(loader(urban, test_fold=10, split="test").dataset.table["fold"]) == {"10"}
    with pytest.raises(UserError, match="no item has fold 10"):
        loader(urban, validation_split={"column": "fold", "value": 10}, test_fold=10)


def test_the_data_sets_own_validation_is_taken(fma):
    audio = loader(fma, "fma", validation_split={"column": "split", "value": "valid"})
    splits = audio.dataset.table["split"]
    assert splits.iloc[audio.train_indices].tolist() == ["train"] * 3
    assert splits.iloc[audio.valid_indices].tolist() == ["valid"] * 2
    # Rock is in the test set alone, and has its place all the same.
    assert audio.classes == ("Hip-Hop", "Pop", "Rock")


@pytest.mark.parametrize("split", [0.3, 6, {"folds": 3, "fold": 1}])
def test_no_group_is_on_both_sides(tmp_path, split):
    audio = loader(sounds.write_esc50(tmp_path), "esc50", validation_split=split)
    assert len(audio.valid_indices)
    assert not groups_of(audio, audio.train_indices) & groups_of(audio, audio.valid_indices)


def test_files_of_one_group_may_be_split_and_it_is_said(tmp_path, caplog):
    audio = loader(sounds.write_esc50(tmp_path), "esc50", validation_split="64/16/20", split_by="file")
    sides = [audio.train_indices, audio.valid_indices, audio.test_indices]
    files = audio.dataset.table["path"].to_numpy()
    assert not set(files[sides[0]]) & set(files[sides[1]]) | set(files[sides[2]]) & set(files[sides[0]])
    assert groups_of(audio, sides[0]) & groups_of(audio, np.concatenate(sides[1:]))
    assert "recordings are on more than one side, and validation scores are too good" in caplog.text


def test_a_split_of_the_data_set_that_parts_a_group_is_said(tmp_path, caplog):
    sounds.write_esc50(tmp_path)
    adapter = {"name": "csv", "file": "meta/esc50.csv", "audio_dir": "audio", "path": "filename", "label": "category"}
    loader(
        tmp_path, {**adapter, "fold": "take", "group": "src_file"}, validation_split={"column": "fold", "value": "A"}
    )
    assert "groups that are on both sides: 15" in caplog.text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"validation_split": {"column": "fold", "value": 11}}, "no item has fold 11 .there are 1, 10, 2"),
        ({"validation_split": {"column": "colour", "value": 1}}, "has no column colour"),
        ({"validation_split": {"column": ["fold"], "value": 1}}, "has no column"),
        ({"validation_split": {"column": "split", "value": "train"}}, "which is all items"),
        ({"validation_split": {"column": "fold"}}, "has the keys"),
        ({"split": "trian"}, "has no items of split trian .its splits: train"),
        ({"classes": ["siren", "dog_bark"]}, "lacks the label 'air_conditioner'"),
        ({"classes": [*sounds.URBAN_CLASSES, "siren"]}, "each named once"),
        ({"frontend": "ast", "channels": 2}, "has no axis for channels"),
        ({"balance": "over"}, "choose from none, oversample, weights"),
    ],
)
def test_a_wrong_argument_is_named(urban, options, says):
    with pytest.raises(UserError, match=says):
        loader(urban, **options)


def test_classes_are_sorted_or_as_given(urban):
    assert loader(urban).classes == sounds.URBAN_CLASSES
    given = ["siren", "dog_bark", "air_conditioner", "gun_shot"]
    audio = loader(urban, classes=given)
    assert audio.classes == tuple(given)
    assert [given[label] for label in audio.dataset.labels] == audio.dataset.table["label"].tolist()
    assert audio.class_counts().tolist() == [10, 10, 10, 0]


def test_oversampling_fills_all_classes_up_to_the_largest(tmp_path):
    for label, count in (("a", 1), ("b", 4), ("c", 2)):
        for number in range(count):
            sounds.tone(tmp_path / label / f"{number}.wav")
    audio = loader(tmp_path, "folders", balance="oversample")
    drawn = torch.cat([batch.target for batch in audio])
    assert drawn.bincount().tolist() == [4, 4, 4]


@pytest.mark.parametrize("channels", [1, 2])
def test_the_number_of_workers_changes_nothing(urban, channels):
    here, there = (list(loader(urban, channels=channels, duration=0.5, num_workers=n)) for n in (0, 2))
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.data, b.data)
        assert torch.equal(a.index, b.index)


def test_features_of_two_channels_stand_behind_each_other(urban):
    both, one = (loader(urban, channels=c, duration=0.5, frontend=MEL, shuffle=False, normalize=False) for c in (2, 1))
    assert both.input_spec.shape == (2, 16, 51)
    batch = next(iter(both))
    found = both.frontend().eval()(batch.data, batch.lengths)
    assert found.shape == (8, 2, 16, 51)
    for channel in range(2):
        alone = one.frontend().eval()(batch.data[:, channel].contiguous(), batch.lengths)
        torch.testing.assert_close(found[:, channel : channel + 1], alone, atol=1e-3, rtol=0)


def test_features_are_normalised_by_the_training_items(urban):
    audio = loader(urban, channels=2, duration=0.5, frontend=MEL, validation_split={"column": "fold", "value": 1})
    batches = list(audio.evaluation("train"))
    features = torch.cat([audio.frontend().eval()(batch.data, batch.lengths) for batch in batches])
    assert abs(float(features.mean())) < 1e-3
    assert float(features.std()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("method", ["mel", "stft"])
def test_sounds_at_a_random_place_are_normalised_as_they_are_trained(tmp_path, method):
    for number in range(4):
        sounds.tone(tmp_path / "ab"[number % 2] / f"{number}.wav", 0.5)
    audio = loader(tmp_path, "folders", duration=4.0, frontend=method, augment={"place": True})
    batch = next(iter(audio))
    features = audio.frontend().train()(batch.data, batch.lengths)
    assert abs(float(features.mean())) < 0.1
    assert float(features.std()) == pytest.approx(1, abs=0.1)


def test_a_rate_that_files_cannot_be_brought_to_is_said(tmp_path):
    for name in "ab":
        sounds.tone(tmp_path / name / "1.wav")
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"data_loader.args.rate: is 44101, .* 8000 Hz cannot be brought"):
            list(loader(tmp_path, "folders", rate=44101, num_workers=workers))


def test_an_unreadable_file_is_one_line_from_a_worker_too(tmp_path):
    for name in ("a/1.wav", "b/1.wav"):
        sounds.tone(tmp_path / name)
    (tmp_path / "a/1.wav").write_bytes(b"RIFF....WAVE")
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"1.wav: is not a readable audio file"):
            list(loader(tmp_path, "folders", num_workers=workers))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("place", "fit"), [(False, "pad"), (True, "pad"), (True, "repeat")])
def test_a_folder_gives_the_same_input_as_the_data_set(urban, channels, place, fit):
    method = {**MEL, "fit": fit}
    options = {"channels": channels, "duration": 0.4, "frontend": method, "augment": {"place": place}}
    audio = loader(urban, **options)
    frontend = audio.frontend().eval()
    files = [urban / path for path in audio.dataset.table["path"]]
    expected, found = {}, {}
    for batch in audio.evaluation("train"):
        expected |= zip(batch.index.tolist(), frontend(batch.data, batch.lengths), strict=True)
    for group in file_groups(files):
        for batch in group_batches(files, group, audio.input_spec, 5):
            found |= zip(batch.index.tolist(), frontend(batch.data, batch.lengths), strict=True)
    assert len(found) == 30
    for index in expected:
        torch.testing.assert_close(found[index], expected[index], atol=1e-3, rtol=0)


def test_a_description_of_two_channels_goes_into_a_checkpoint_and_an_older_one_has_one(urban):
    spec = loader(urban, channels=2, duration=0.5, frontend=MEL).input_spec
    assert InputSpec.from_dict(spec.to_dict()) == spec
    older = spec.to_dict()
    del older["channels"]
    assert InputSpec.from_dict(older).channels == 1
    with pytest.raises(UserError, match=r"input.channels: is 0"):
        InputSpec.from_dict(spec.to_dict() | {"channels": 0})


@pytest.mark.parametrize("method", [MEL, None])
def test_channels_of_an_item_are_moved_together_and_items_apart(urban, method):
    audio = loader(
        urban, channels=2, duration=0.5, frontend=method, augment={"shift": 0.5, "gain_db": 6, "place": True}
    )
    waveform = torch.randn(1, 1, 6000, generator=torch.Generator().manual_seed(0))
    frontend = Frontend(audio.input_spec, audio.augmentation).train()
    found = frontend(waveform.repeat(20, 2, 1), torch.full((20,), 6000))
    first, second = found.unflatten(1, (2, -1))[:, 0], found.unflatten(1, (2, -1))[:, 1]
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    assert len(first.flatten(1).unique(dim=0)) == 20


def test_the_fingerprint_tells_labels_and_splits_apart(urban, tmp_path):
    one = AudioDataset(urban, "urbansound8k", test_fold=10).fingerprint()
    assert set(one) == {"train", "test"}
    other = AudioDataset(urban, "urbansound8k", ["test"], test_fold=10).fingerprint()
    assert one == other
    assert AudioDataset(urban, "urbansound8k", test_fold=9).fingerprint()["train"] != one["train"]
