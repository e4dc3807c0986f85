from __future__ import annotations

import json
import shutil
from argparse import Namespace

import pytest

from data_loader.classes import resp_classes
from tests import sounds
from tests.tiny import ROOT
from trainer.check import check_config
from trainer.group import read_group
from utils.config import ConfigParser, read_config

SHAPES = {"stft": [1, 224, 224], "wav2vec": [1, 224, 224], "ast_wav2vec": [768, 128], "summary": [180]}
SHAPES |= {"multimel": [4, 64, 1232], "multimel_event": [4, 64, 192]}
ARCHITECTURES = {
    "lightcnn": ("LightCNN", "processed_stft"),
    "resnet18": ("ResNet18", "processed_stft"),
    "ast": ("ASTModel", "processed_ast_wav2vec"),
}
TWELVE = [f"task{task}_{level}_{arch}" for task in (1, 2) for level in (1, 2) for arch in ARCHITECTURES]

CLASSICAL = ["naive_bayes", "logistic_regression", "knn", "svm", "random_forest", "gradient_boosting"]
SMALL_NETS = ["audioclassifier", "crnn", "gru", "rawcnn1d"]


@pytest.fixture(scope="module")
def data_dir(tiny_data, tmp_path_factory):
    """Tables, stores that are but described, and the other data sets, all in one folder."""
    folder = tmp_path_factory.mktemp("data")
    sounds.write_urbansound8k(folder, folds=1, classes=sounds.URBAN_TEN)
    sounds.write_fma(folder)
    sounds.write_icbhi(folder)
    for table in tiny_data.glob("*.csv"):
        shutil.copy(table, folder)
    for method, shape in SHAPES.items():
        meta = {"method": method, "params": {}, "shape": shape, "dtype": "float16", "repeats": 1}
        (folder / f"processed_{method}").mkdir()
        meta |= {"sources": {}, "items": {"2": 1}, "shards": {"s.npy": 1}}
        (folder / f"processed_{method}" / "meta.json").write_text(json.dumps(meta))
    return folder


def config_of(name):
    return read_config(ROOT / "configs" / f"{name}.json")


def test_all_ready_configs_are_there():
    names = {path.stem for path in (ROOT / "configs").glob("*.json")}
    assert names >= {*TWELVE, "task1_1_lightcnn_wav2vec", "task1_1_resnet18_audio", "demo"}
    assert "urbansound8k_audioclassifier" in names
    assert names >= {f"{task}_{arch}" for task in ("task1_1", "task2_1") for arch in (*CLASSICAL, *SMALL_NETS)}
    assert names >= {"memory_srn", "memory_lstm", "memory_gru"}
    assert "fma_rawcnn1d" in names
    assert names >= {"task1_1_mn04", "task2_1_mn04", "task1_1_efficientnet_b0"}


SHIPPED = sorted((ROOT / "configs").glob("*.json"))
# These name others, which are trained in folds.
ENSEMBLES = [path for path in SHIPPED if "ensemble" in read_config(path)]


@pytest.mark.parametrize("path", [path for path in SHIPPED if path not in ENSEMBLES], ids=lambda path: path.stem)
def test_a_ready_config_passes_the_check(data_dir, path):
    config = ConfigParser(read_config(path))
    assert config["name"] == path.stem
    # Digits to add have no folder.
    has_data = "data_dir" in config["data_loader"]["args"]
    check_config(config.changed("data_loader.args", **{"data_dir": str(data_dir)} if has_data else {}))


@pytest.mark.parametrize("path", ENSEMBLES, ids=lambda path: path.stem)
def test_the_members_of_a_ready_ensemble_can_be_one(path):
    group = read_group(Namespace(config=path, folds=2, seeds=1))
    assert group.name == path.stem
    members = list(group.members.values())
    assert {f"{name}.json" for name in group.members} <= {other.name for other in SHIPPED}
    # What they learn of and what they are given is the same.
    for key in (
        "data_dir",
        "task",
        "level",
        "split_by",
        "filtered",
        "input_dir",
        "frontend",
        "duration",
        "rate",
        "seed",
    ):
        values = [member.get(f"data_loader.args.{key}") for member in members]
        assert all(value == values[0] for value in values), key
    assert len({member.seed for member in members}) == 1


@pytest.mark.parametrize("name", TWELVE)
def test_a_ready_config_is_what_its_name_says(name):
    task, level, arch = int(name[4]), int(name[6]), name[8:]
    config = config_of(name)
    args = config["data_loader"]["args"]
    assert (args["task"], args["level"]) == (task, level)
    assert (config["arch"]["type"], args["input_dir"]) == ARCHITECTURES[arch]
    assert config["arch"]["args"]["label_dim"] == len(resp_classes(task, level))
    assert config["trainer"]["monitor"] == f"max val_score_task{task}"
    assert args["data_dir"] == "data/SPRSound/"
    assert args.get("split_by", "patient") == "patient"


def test_the_wav2vec_config_is_that_of_task_1_1_on_other_features():
    own, other = config_of("task1_1_lightcnn_wav2vec"), config_of("task1_1_lightcnn")
    assert own["data_loader"]["args"].pop("input_dir") == "processed_wav2vec"
    del own["name"], other["name"], other["data_loader"]["args"]["input_dir"]
    assert own == other


def test_the_audio_config_is_that_of_task_1_1_without_a_store():
    own, other = config_of("task1_1_resnet18_audio"), config_of("task1_1_resnet18")
    args, other_args = own["data_loader"]["args"], other["data_loader"]["args"]
    method = other_args.pop("input_dir").removeprefix("processed_")
    assert (args.pop("input_dir"), args.pop("frontend")) == (None, method)
    # The masks stay; what only audio can have comes on top.
    assert args["augment"].keys() - other_args["augment"].keys() == {"gain_db", "noise_db", "shift"}
    args["augment"] = {key: args["augment"][key] for key in other_args["augment"]}
    del own["name"], other["name"]
    assert own == other


def test_the_model_for_environmental_sounds_is_the_same_on_lung_sounds():
    urban, lungs = config_of("urbansound8k_audioclassifier"), config_of("task1_1_audioclassifier")
    assert urban["arch"]["type"] == lungs["arch"]["type"] == "AudioClassifier"
    for key in ("optimizer", "lr_scheduler"):
        assert urban[key] == lungs[key]
    urban_args, args = urban["data_loader"]["args"], lungs["data_loader"]["args"]
    # Lung sounds have one channel, 8 kHz, and events that are shifted and masked as sounds are.
    assert (args["task"], args["level"], args["input_dir"]) == (1, 1, None)
    assert urban_args["augment"].items() <= args["augment"].items()
    assert (args["duration"], args["frontend"]["n_mels"]) == (4.0, 64)


def assert_of_one_job(config, other):
    assert config["arch"]["args"]["label_dim"] == other["arch"]["args"]["label_dim"]
    assert (config["metrics"], config["trainer"]["monitor"]) == (other["metrics"], other["trainer"]["monitor"])
    args, other_args = config["data_loader"]["args"], other["data_loader"]["args"]
    for key in ("data_dir", "task", "level", "validation_split"):
        assert args[key] == other_args[key]


@pytest.mark.parametrize("task", ["task1_1", "task2_1"])
@pytest.mark.parametrize("name", SMALL_NETS)
def test_the_small_networks_differ_in_nothing_that_makes_a_comparison_unfair(task, name):
    own, other = config_of(f"{task}_{name}"), config_of(f"{task}_lightcnn")
    assert own["arch"]["type"].lower() == name
    assert own["loss"] == other["loss"]
    assert_of_one_job(own, other)


@pytest.mark.parametrize("task", ["task1_1", "task2_1"])
@pytest.mark.parametrize("name", CLASSICAL)
def test_the_classical_configs_differ_in_nothing_that_makes_a_comparison_unfair(task, name):
    own = config_of(f"{task}_{name}")
    assert own["arch"]["args"]["estimator"] == name
    assert_of_one_job(own, config_of(f"{task}_lightcnn"))
    args = own["data_loader"]["args"]
    # Each feature is scaled by itself, in the estimator.
    assert (args["input_dir"], args["normalize"], args["augment"]) == ("processed_summary", False, None)


@pytest.mark.parametrize("name", ["task1_1_mn04", "task2_1_mn04"])
def test_an_audioset_network_hears_what_it_was_pretrained_on(name):
    args = config_of(name)["data_loader"]["args"]
    assert (args["input_dir"], args["frontend"]["method"], args["normalize"]) == (None, "mel32k", False)
    assert config_of(name)["arch"]["args"].get("weights", "hub") == "hub"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.json")), ids=lambda path: path.stem)
def test_the_learning_rate_of_a_ready_config_is_the_one_that_lr_changes(path):
    assert "max_lr" not in (read_config(path).get("lr_scheduler") or {}).get("args", {})
