"""What each part of the recipes is worth."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest

from data_loader.augment import Augmentation
from model import architectures
from tests.tiny import ROOT
from trainer.check import check_config
from utils.arguments import check_arguments
from utils.cli import run_script
from utils.config import ConfigParser, parse_assignments

# Writes what train.py --folds leaves, with predictions that lie ready.
TRAIN = f"""
import json, shutil, sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, {str(ROOT)!r})
from utils.config import ConfigParser

_, config, _, folds, _, run_id, *rest = sys.argv[1:]
reused, sets = (rest[1], rest[2:]) if rest[:1] == ["--reuse"] else (None, rest)
assert folds == "5" and sets[:1] in ([], ["--set"])
config = ConfigParser.from_args(Namespace(config=config, set=sets[1:]))
with Path("trained").open("a") as file:
    print(config["name"], run_id, *(["of", Path(reused).name] if reused else []), file=file)
folder = Path("saved/models") / config["name"] / run_id
(folder / "oof").mkdir(parents=True)
ready = "base" if run_id == "ablation_base" else "changed"
shutil.copy(f"{{config['name']}}_{{ready}}.csv", folder / "oof" / "predictions.csv")
report = {{"task": config["name"][4:7].replace("_", "-"), "config": {{config["name"]: config.to_dict()}}}}
(folder / "oof" / "metrics.json").write_text(json.dumps(report))
(folder / "model_best.pth").touch()
"""
EVENTS, RECORDINGS = "task1_2_eventnet_resnet", "task2_2_recordingnet_mn04"


@pytest.fixture
def ablation(benchmark_script):
    """The script."""
    return benchmark_script("ablation")


@pytest.fixture
def call(ablation, tmp_path, monkeypatch, own_sigterm):
    """Runs the script in a folder of its own; gives its exit status and which runs it trained."""
    import steps

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(steps, "ROOT", tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    (tmp_path / "train.py").write_text(TRAIN)
    head = "wav_name,patient_id,target,prob_Normal,prob_Poor Quality,prob_CAS,prob_DAS,prob_CAS & DAS\n"
    right, poor = "a,p,Normal,1,0,0,0,0\n", "b,q,CAS,0,0.6,0.4,0,0\nc,q,CAS,0,0,1,0,0\n"
    (tmp_path / f"{RECORDINGS}_base.csv").write_text(head + right + poor)
    (tmp_path / f"{RECORDINGS}_changed.csv").write_text(head + right + poor.replace("c,q,CAS,0,0,1", "c,q,CAS,1,0,0"))
    head = "wav_name,patient_id,event_id,target,prob_Normal,prob_Wheeze\n"
    (tmp_path / f"{EVENTS}_base.csv").write_text(f"{head}a,p,0,Normal,1,0\na,p,1,Wheeze,1,0\nb,q,0,Wheeze,0,1\n")
    (tmp_path / f"{EVENTS}_changed.csv").write_text(f"{head}a,p,0,Normal,1,0\na,p,1,Wheeze,0,1\nb,q,0,Wheeze,0,1\n")

    def call(*argv):
        (tmp_path / "trained").write_text("")
        status = run_script(ablation.main, ablation.parser(), ["--wait", *argv])
        return status, (tmp_path / "trained").read_text().splitlines()

    return call


@pytest.fixture(scope="module")
def data_dir(tiny_data, tmp_path_factory):
    """Tables, and stores that are but described."""
    folder = tmp_path_factory.mktemp("data")
    for table in tiny_data.glob("*.csv"):
        shutil.copy(table, folder)
    for method, shape in (("multimel", [4, 64, 1232]), ("multimel_event", [4, 64, 192])):
        meta = {"method": method, "params": {}, "shape": shape, "dtype": "float16", "repeats": 1, "sources": {}}
        (folder / f"processed_{method}").mkdir()
        meta |= {"items": {"2": 1}, "shards": {"s.npy": 1}}
        (folder / f"processed_{method}" / "meta.json").write_text(json.dumps(meta))
    return folder


def parsed(row):
    """What train.py makes of a row's command."""
    spec = importlib.util.spec_from_file_location("script_train", ROOT / "train.py")
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    script, *words = row.step.words
    assert script == "train.py"
    return train.parser().parse_args(words)


def in_force(config, key):
    """A value of a config, or what is taken where it says nothing."""
    section, _, name = key.rpartition(".")
    if section == "data_loader.args.augment":
        return getattr(Augmentation.from_config(config.get(section)), name)
    if section == "arch.args":
        return check_arguments(architectures[config["arch"]["type"]], config.get(section), section)[name]
    return config.get(key)


def test_every_row_changes_its_recipe_in_what_it_names_and_can_be_trained(ablation, data_dir, monkeypatch):
    monkeypatch.chdir(ROOT)
    bases = {name: ConfigParser.from_args(parsed(row)) for name, row in ablation.BASES.items()}
    for row in ablation.ROWS:
        args = parsed(row)
        base, config = bases[row.config], ConfigParser.from_args(args)
        check_config(config.changed("data_loader.args", data_dir=str(data_dir)))
        for key in parse_assignments(row.changes):
            # The same folds, whatever the seed.
            if key != "data_loader.args.seed":
                assert in_force(config, key) != in_force(base, key), (row.slug, key)
        assert config.get("data_loader.args.seed", config.seed) == base.seed
        folder = config.save_root / "models" / config["name"] / args.run_id
        assert (args.folds, row.step.done) == (5, (folder / "model_best.pth", folder / "oof" / "metrics.json"))
    runs = [row.scores for row in (*ablation.BASES.values(), *ablation.ROWS)]
    assert len(set(runs)) == len(runs)


def test_what_is_named_is_trained_after_its_recipe_and_the_tables_have_all_that_is_done(call, tmp_path, capsys):
    status, trained = call("--only", "recordings_no_masks", "events_mixup", "events_seed")
    assert status == 0
    events, recordings = (f"{name} ablation_" for name in (EVENTS, RECORDINGS))
    assert trained == [
        *(f"{events}{slug}" for slug in ("base", "events_seed", "events_mixup")),
        *(f"{recordings}{slug}" for slug in ("base", "recordings_no_masks")),
    ]
    assert call("--only", "events_no_ema", "events_seed") == (0, [f"{events}events_no_ema"])
    text = (tmp_path / "saved" / "ablation.md").read_text()
    assert capsys.readouterr().out.endswith(f"{text}\nsaved/ablation.md\n")
    # Counted, the recording that is called Poor Quality is right in both.
    over = "difference [95 % interval over patients] | SE (difference) | SP (difference) |\n|---|---|---|---|---|\n"
    changed = "1.000 | +0.292 [+0.292, +0.750] | 1.000 (+0.500) | 1.000 (+0.000) |\n"
    assert text == (
        f"`{EVENTS}`:\n\n| run | Score (--decide argmax) | {over}"
        "| the recipe | 0.708 |  | 0.500 | 1.000 |\n"
        f"| another seed | {changed}| no moving average of the weights | {changed}"
        f"| mixup of half of the batches | {changed}\n"
        f"`{RECORDINGS}`:\n\n| run | Score (--decide counted) | {over}"
        "| the recipe | 1.000 |  | 1.000 | 1.000 |\n"
        "| no masks | 0.708 | -0.292 [-0.292, -0.292] | 0.500 (-0.500) | 1.000 (+0.000) |\n"
    )


def test_what_changes_no_training_is_scored_with_the_recipe_s_own_networks(call):
    trained = [f"{EVENTS} ablation_base", f"{EVENTS} ablation_events_alone of ablation_base"]
    assert call("--only", "events_alone") == (0, trained)


def test_what_was_trained_by_another_config_is_neither_compared_nor_taken_for_done(call, tmp_path, capsys):
    status, trained = call("--only", "events_seed", "events_mixup")
    assert status == 0
    # A recipe that nothing is compared with is not trained.
    assert [name.split()[0] for name in trained] == [EVENTS] * 3
    report = tmp_path / "saved" / "models" / EVENTS / "ablation_events_seed" / "oof" / "metrics.json"
    report.write_text(report.read_text().replace('"epochs": ', '"epochs": 1'))
    capsys.readouterr()
    assert call("--only", "events_seed") == (1, [])
    said = capsys.readouterr().err
    assert said.startswith(
        f"error: saved/models/{EVENTS}/ablation_events_seed: was not trained by configs/{EVENTS}.json"
    )
    assert call("--only", "events_mixup") == (0, [])
    text = (tmp_path / "saved" / "ablation.md").read_text()
    assert "another seed" not in text
    assert "left out: ablation_events_seed\n" in text
    # Nothing is left to compare with when the recipe itself has changed.
    config = tmp_path / "configs" / "base" / "events.json"
    config.write_text(config.read_text().replace('"epochs": ', '"epochs": 1'))
    assert call("--only", "events_mixup") == (1, [])


def test_a_row_that_there_is_not_is_wrong_usage(call, capsys):
    with pytest.raises(SystemExit, match="2"):
        call("--only", "events_sead")
    assert "events_no_label_smoothing" in capsys.readouterr().err
