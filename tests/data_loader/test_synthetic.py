from __future__ import annotations

import collections
import itertools
import json

import numpy as np
import pytest
import soundfile

from data_loader.annotation import parse_name, read_annotation
from data_loader.classes import EVENT_TYPES, NORMAL, POOR_QUALITY, RECORD_TYPES
from data_loader.layout import find_pairs
from data_loader.synthetic import write_synthetic
from utils.errors import UserError


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The default set: its folder, and (pair, annotation) of each recording."""
    folder = tmp_path_factory.mktemp("full")
    count = write_synthetic(folder)
    items = [(pair, read_annotation(pair.annotation)) for pair in find_pairs(folder)]
    assert len(items) == count
    return folder, items


def of_split(items, split):
    return [(pair, annotation) for pair, annotation in items if pair.split == split]


def patients_of(items):
    return {parse_name(pair.audio).patient_id for pair, _ in items}


def test_the_layout_is_the_official_one(full):
    folder, items = full
    folders = {path.parent.relative_to(folder).as_posix() for path in (folder / "BioCAS2022").rglob("*.*")}
    tests = {f"BioCAS2022/test2022_json/{part}_test_json" for part in ("inter", "intra")}
    train = {"BioCAS2022/train2022_wav", "BioCAS2022/train2022_json", "BioCAS2022/test2022_wav"}
    assert folders == train | tests
    assert {path.name for path in folder.iterdir()} == {"BioCAS2022", "SYNTHETIC.txt"}
    assert all(pair.audio and pair.annotation for pair, _ in items)


def test_the_size_is_that_of_a_demo(full):
    _, items = full
    count = collections.Counter(pair.split for pair, _ in items)
    assert count == {"train": 144, "inter": 30, "intra": 24}
    assert 400 <= sum(len(annotation.events) for _, annotation in of_split(items, "train")) <= 700


def test_recordings_are_8_khz_mono_16_bit_of_7_to_11_seconds(full):
    for pair, _ in full[1]:
        info = soundfile.info(pair.audio)
        assert (info.samplerate, info.channels, info.subtype, info.format) == (8000, 1, "PCM_16", "WAV")
        assert 7.0 <= info.duration <= 11.0


def test_the_annotations_are_written_as_in_the_real_set(full):
    pair = next(pair for pair, annotation in full[1] if annotation.events)
    text = pair.annotation.read_text()
    content = json.loads(text)
    assert text == json.dumps(content)
    assert list(content) == ["record_annotation", "event_annotation"]
    assert all(list(event) == ["start", "end", "type"] for event in content["event_annotation"])
    assert all(isinstance(value, str) for event in content["event_annotation"] for value in event.values())


def test_events_lie_inside_their_recording_and_do_not_overlap(full):
    for pair, annotation in full[1]:
        times = [time for event in annotation.events for time in (event.start_ms, event.end_ms)]
        # The breaths follow one another; the margins of a tone may touch the next one.
        assert all(later - earlier > -200 for earlier, later in itertools.pairwise(times))
        assert all(event.end_ms - event.start_ms > 100 for event in annotation.events)
        assert not times or 0 <= times[0] <= times[-1] <= 1000 * soundfile.info(pair.audio).duration


def test_the_record_label_follows_from_the_events(full):
    continuous = {"Rhonchi", "Wheeze", "Stridor", "Wheeze & Crackle"}
    discontinuous = {"Coarse Crackle", "Fine Crackle", "Wheeze & Crackle"}
    for _, annotation in full[1]:
        types = {event.label for event in annotation.events}
        if annotation.record_label == POOR_QUALITY:
            assert not types
        else:
            assert types
            assert ("CAS" in annotation.record_label.split(" & ")) == bool(types & continuous)
            assert ("DAS" in annotation.record_label.split(" & ")) == bool(types & discontinuous)
            assert (annotation.record_label == NORMAL) == (types == {NORMAL})


def test_every_class_occurs_in_every_part_and_for_several_training_patients(full):
    _, items = full
    for split, fewest in (("train", 5), ("inter", 1), ("intra", 1)):
        owners = collections.defaultdict(set)
        for pair, annotation in of_split(items, split):
            for label in [annotation.record_label, *(f"event {event.label}" for event in annotation.events)]:
                owners[label].add(parse_name(pair.audio).patient_id)
        wanted = {*RECORD_TYPES, *(f"event {kind}" for kind in EVENT_TYPES)}
        assert {label: len(patients) for label, patients in owners.items() if len(patients) < fewest} == {}
        assert owners.keys() == wanted


def test_inter_patients_are_new_and_intra_patients_are_known(full):
    train, inter, intra = (of_split(full[1], split) for split in ("train", "inter", "intra"))
    assert not patients_of(inter) & patients_of(train)
    assert patients_of(intra) <= patients_of(train)


def test_a_patient_has_one_age_and_gender_and_a_recording_number_occurs_once(full):
    names = [parse_name(pair.audio) for pair, _ in full[1]]
    assert len({(name.patient_id, name.age, name.gender) for name in names}) == len({n.patient_id for n in names})
    assert len({name.rec_id for name in names}) == len(names)


def test_poor_quality_means_clipping_rubbing_or_silence(full):
    clipped, silent, other = 0, 0, 0
    for pair, annotation in full[1]:
        samples, _ = soundfile.read(pair.audio, dtype="int16")
        at_limit = np.isin(samples, (-32768, 32767)).mean()
        zero = (samples == 0).mean()
        if annotation.record_label == POOR_QUALITY:
            clipped += at_limit > 0.001
            silent += zero > 0.4
            other += at_limit <= 0.001 and zero <= 0.4
        else:
            assert at_limit == 0
            assert zero < 0.4
    assert min(clipped, silent, other) >= 3


def test_loudness_is_that_of_the_real_set(full):
    rms = [
        float(np.std(soundfile.read(pair.audio)[0]))
        for pair, annotation in full[1]
        if annotation.record_label != POOR_QUALITY
    ]
    assert 0.003 < np.median(rms) < 0.012  # SPRSound: 0.0067


def test_there_is_next_to_nothing_above_1300_hz(full):
    for pair, annotation in full[1][::5]:
        if annotation.record_label != POOR_QUALITY:
            samples, rate = soundfile.read(pair.audio)
            power = np.abs(np.fft.rfft(samples)) ** 2
            frequency = np.fft.rfftfreq(len(samples), 1 / rate)
            assert power[frequency > 1300].sum() < 1e-2 * power.sum()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_synthetic(tmp_path / name, seed=seed, patients=2, recordings_per_patient=2)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    wav = {name: content for name, content in a.items() if name.endswith(".wav")}
    assert len(wav) == 8
    assert not set(wav.values()) & set(c.values())


def test_a_patient_sounds_the_same_in_a_larger_set(tmp_path):
    write_synthetic(tmp_path / "small", patients=2, recordings_per_patient=2)
    write_synthetic(tmp_path / "large", patients=3, recordings_per_patient=2)
    train = [
        {
            path.name: path.read_bytes()
            for path in (tmp_path / size / "BioCAS2022" / "train2022_wav").iterdir()
            if path.name.startswith(("90000001", "90000002"))
        }
        for size in ("small", "large")
    ]
    assert train[0] == train[1]


def test_the_tiny_set_has_every_record_label_in_training(tmp_path):
    assert write_synthetic(tmp_path, patients=6, recordings_per_patient=3) == 18 + 4 + 6
    items = [(pair, read_annotation(pair.annotation)) for pair in find_pairs(tmp_path)]
    assert {annotation.record_label for _, annotation in of_split(items, "train")} == set(RECORD_TYPES)


def test_a_synthetic_set_is_kept_or_replaced_as_the_arguments_say(tmp_path):
    write_synthetic(tmp_path, patients=2, recordings_per_patient=1)
    before = contents(tmp_path)
    file = next((tmp_path / "BioCAS2022" / "train2022_wav").iterdir())
    written = file.stat().st_mtime_ns
    assert write_synthetic(tmp_path, patients=2, recordings_per_patient=1) == 6
    assert file.stat().st_mtime_ns == written
    write_synthetic(tmp_path, seed=5, patients=2, recordings_per_patient=1)
    assert not set(before.values()) & set(contents(tmp_path).values())
    write_synthetic(tmp_path, patients=2, recordings_per_patient=1)
    assert contents(tmp_path) == before


def test_data_that_may_be_real_is_left_alone(tmp_path):
    real = tmp_path / "BioCAS2022" / "train2022_wav" / "65101170_0.4_0_p4_3248.wav"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"real")
    with pytest.raises(UserError, match="may be real"):
        write_synthetic(tmp_path, patients=1, recordings_per_patient=1)
    assert contents(tmp_path) == {real.relative_to(tmp_path).as_posix(): b"real"}


def test_a_recording_added_to_a_synthetic_set_is_left_alone(tmp_path):
    write_synthetic(tmp_path, patients=1, recordings_per_patient=1)
    added = tmp_path / "BioCAS2022" / "train2022_wav" / "65101170_0.4_0_p4_3248.wav"
    added.write_bytes(b"real")
    with pytest.raises(UserError, match="not the synthetic set"):
        write_synthetic(tmp_path, seed=1, patients=1, recordings_per_patient=1)
    assert added.read_bytes() == b"real"


@pytest.mark.parametrize("folder", ["wav", "train_wav", "BioCAS2023/test2023_wav"])
def test_it_is_not_mixed_with_another_release(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(UserError, match="mixed"):
        write_synthetic(tmp_path, patients=1, recordings_per_patient=1)
    assert not (tmp_path / "BioCAS2022").exists()


@pytest.mark.parametrize("text", ["", "something\n", '{"parameters": {}}\n', "[]\n"])
def test_a_strange_marker_is_an_error(tmp_path, text):
    write_synthetic(tmp_path, patients=1, recordings_per_patient=1)
    (tmp_path / "SYNTHETIC.txt").write_text(text)
    with pytest.raises(UserError, match=r"SYNTHETIC\.txt"):
        write_synthetic(tmp_path, patients=1, recordings_per_patient=1)


def test_an_interrupted_run_leaves_no_half_of_a_set(tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        if (tmp_path / ".synthetic-part").exists() and any((tmp_path / ".synthetic-part").rglob("*.json")):
            raise OSError(28, "No space left on device")
        return write(*args, **kwargs)

    write = soundfile.write
    monkeypatch.setattr(soundfile, "write", full_disk)
    with pytest.raises(UserError, match="No space left"):
        write_synthetic(tmp_path, patients=2, recordings_per_patient=1)
    assert contents(tmp_path) == {}
    monkeypatch.undo()
    assert write_synthetic(tmp_path, patients=2, recordings_per_patient=1) == 6


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_synthetic(tmp_path / "file", patients=1, recordings_per_patient=1)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"patients": 0}, {"recordings_per_patient": 0}])
def test_impossible_sizes_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError):
        write_synthetic(tmp_path, **wrong)
