from __future__ import annotations

import json
import shutil

import pytest

from tests.tiny import tiny_config
from trainer.check import check_config
from utils.config import ConfigParser, set_key
from utils.errors import UserError

# The config printed in DESIGN section 9, from before this project.
OLD = """
{
    "name": "Audio_Resp_21",
    "n_gpu": 1,
    "arch": {"type": "ASTModel",
        "args": {"label_dim": 3, "input_fdim": 128, "input_tdim": 768, "audioset_pretrain": true}},
    "data_loader": {"type": "RespDataLoader", "args": {"data_dir": "data/SPRSound/", "batch_size": 16, "shuffle": true,
        "validation_split": 0.2, "num_workers": 2, "task": 2, "level": 1, "input_dir": "processed_ast_wav2vec"}},
    "optimizer": {"type": "Adam", "args": {"lr": 0.0001, "weight_decay": 0, "amsgrad": true}},
    "loss": {"type": "cross_entropy", "args": {"weight": [0.2, 0.5, 0.3]}},
    "metrics": ["accuracy", "specificity", "sensitivity_task2", "score_task2"],
    "lr_scheduler": {"type": "StepLR", "args": {"step_size": 50, "gamma": 0.1}},
    "trainer": {"epochs": 100, "save_dir": "saved/", "save_period": 1, "verbosity": 2, "monitor": "min val_loss",
        "early_stop": 10, "tensorboard": true}
}
"""


@pytest.fixture
def config(tiny_data, tmp_path):
    return tiny_config(tiny_data, tmp_path / "saved")


def check(config, **changes):
    for key, value in changes.items():
        set_key(config, key.replace("__", "."), value)
    check_config(ConfigParser(config))


def error_of(config, key, value):
    set_key(config, key, value)
    with pytest.raises(UserError) as caught:
        check_config(ConfigParser(config))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fake_store(folder, method, shape):
    meta = {
        "method": method,
        "params": {},
        "shape": shape,
        "dtype": "float16",
        "repeats": 1,
        "sources": {},
        "items": {"2": 1},
        "shards": {"s.npy": 1},
    }
    (folder / f"processed_{method}").mkdir()
    (folder / f"processed_{method}" / "meta.json").write_text(json.dumps(meta))


def test_a_config_that_fits_passes(config):
    check(config)


def test_a_learning_rate_for_each_group_of_parameters_passes(config):
    check(config, lr_scheduler={"type": "OneCycleLR", "args": {"max_lr": [0.1, 0.01, 0.001]}})


WRONG_NAMES = [
    ("arch.type", "LigthCNN", "did you mean LightCNN?"),
    ("arch.args.labeldim", 2, "did you mean label_dim?"),
    ("arch.args.dropout", "much", "expected a number"),
    ("arch.args.norm", 1, "expected true or false"),
    ("data_loader.type", "RespLoader", "did you mean RespDataLoader?"),
    ("data_loader.args.batchsize", 2, "did you mean batch_size?"),
    ("data_loader.args.batch_size", True, "expected a whole number"),
    ("data_loader.args.batch_size", 16.0, "expected a whole number"),
    ("data_loader.args.shuffle", "yes", "expected true or false"),
    ("data_loader.args.task", 3, "expected 1 or 2"),
    ("data_loader.args.task", True, "expected 1 or 2"),
    ("data_loader.args.split_by", "pateint", "expected 'patient' or 'recording'"),
    ("data_loader.args.balance", "over", "expected 'none' or 'oversample' or 'weights'"),
    ("data_loader.args.rank", 1, "is unknown"),
    ("data_loader.args.augment.tmasks", 2, "did you mean time_masks?"),
    ("data_loader.args.augment.time_masks", "two", "not a number"),
    ("data_loader.args.augment.time_width", 2, "between 0 and 1"),
    ("data_loader.args.augment.time_masks", True, "not a number"),
    ("optimizer.type", "Adan", "did you mean Adam?"),
    ("optimizer.args.weightdecay", 1, "did you mean weight_decay?"),
    ("optimizer.args.params", [], "is unknown"),
    ("optimizer.args.amsgrad", 1, "expected true or false"),
    ("lr_scheduler", {"type": "StepLr"}, "did you mean StepLR?"),
    ("lr_scheduler", {"type": "StepLR", "args": {"stepsize": 3}}, "did you mean step_size?"),
    ("lr_scheduler", {"type": "StepLR"}, "lr_scheduler.args.step_size: is missing"),
    ("lr_scheduler", {"type": "LambdaLR"}, "there is no learning-rate schedule"),
    ("lr_scheduler", {"type": "OneCycleLR", "args": {"maxlr": 1}}, "did you mean max_lr?"),
    ("loss", "cross_entrpy", "did you mean cross_entropy?"),
    ("loss.args.weights", [1, 2], "did you mean weight?"),
    ("loss.args.weight", "balancd", "expected"),
    ("metrics", ["accuracy", "acuracy"], "metrics[1]: there is no metric 'acuracy' (did you mean accuracy?)"),
    ("trainer.monitor", "min val_los", "did you mean val_loss?"),
    ("trainer.monitor", "max val_specificity", "which is not measured"),
    ("trainer.monitor", "min epoch", "which is not measured"),
]


@pytest.mark.parametrize(("key", "value", "says"), WRONG_NAMES)
def test_a_wrong_name_or_type_is_named_with_what_is_right(config, key, value, says):
    error = error_of(config, key, value)
    assert error.startswith(key.split(".")[0] if "." in key else key)
    assert says in error


IMPOSSIBLE = [
    (
        "arch.args.label_dim",
        3,
        "arch.args.label_dim: is 3, but task 1-1 has 2 classes (set it to 2: Normal, Adventitious)",
    ),
    ("data_loader.args.level", 2, "task 1-2 has 7 classes"),
    ("loss.args.weight", [1, 2, 3], "loss.args.weight: there are 3 weights for 2 classes"),
    ("loss.args.weight", [0, 0], "not all 0"),
    ("loss.args.label_smoothing", 2, "loss.args: label_smoothing must be between 0.0 and 1.0"),
    ("metrics", ["score_task2"], "metrics[0]: is score_task2, but the data is of task 1 (take score_task1)"),
    ("data_loader.args.validation_split", 0, "trainer.monitor: watches val_loss, but there is no validation"),
    ("data_loader.args.filtered", True, "data_loader.args.filtered: goes with task 2 only"),
    ("data_loader.args.duration", 2.0, "data_loader.args.duration: goes with waveforms only"),
    ("data_loader.args.frontend", "stft", "data_loader.args.frontend: goes with waveforms only"),
    ("data_loader.args.augment", {"gain_db": 3}, "augment.gain_db: changes waveforms, but the input is features"),
    ("data_loader.args.augment", {"roll_time": True}, "augment.roll_time: is for features that mark a span"),
    ("data_loader.args.augment", {"splice": 0.5}, "augment.splice: is for features that mark a span"),
    ("data_loader.args.augment", {"splice": 1.5}, "splice: is 1.5 (a share lies between 0 and 1)"),
    ("data_loader.args.augment", {"edge_jitter": 0.1}, "augment.edge_jitter: is for features that mark a span"),
    ("data_loader.args.augment", {"time_masks": 1, "time_axis": -4}, "time_axis: is -4"),
    ("data_loader.args.augment", {"freq_masks": 1, "freq_axis": 1}, "axes count from the end: -1 to -3"),
    ("data_loader.args.batch_size", 0, "data_loader.args.batch_size: is 0 (expected at least 1)"),
    ("data_loader.args.num_workers", -1, "expected at least 0"),
    ("data_loader.args.num_workers", 10**6, "expected at most"),
    ("data_loader.args.rate", 0, "expected at least 100"),
    ("data_loader.args.rate", 44101, "data_loader.args.rate: is 44101, to which audio at 8000 Hz cannot be brought"),
    ("data_loader.args.input_dir", None, "Tiny takes (1, 224, 224)"),
    ("data_loader.args.input_dir", "processed_mel", "--method mel"),
    ("data_loader.args.data_dir", "/nowhere", "there is no such table"),
    ("optimizer.args.lr", -1, "optimizer.args: Invalid learning rate: -1"),
    ("optimizer.args.lr", "fast", "optimizer.args"),
    ("data_loader.args.seed", -1, "data_loader.args.seed: is -1 (expected at least 0)"),
    ("data_loader.args.augment", {"freq_masks": -1}, "freq_masks: is -1 (expected at least 0)"),
    ("data_loader.args.augment", {"mixup": 1.5}, "mixup: is 1.5 (a share lies between 0 and 1)"),
    ("data_loader.args.augment", {"mixup": 0.5, "mixup_alpha": 0}, "mixup_alpha: is 0 (expected more)"),
    ("trainer.ema", 1.0, "trainer.ema: is 1.0 (expected less than 1)"),
    ("trainer.ema", 0, "trainer.ema: is 0 (expected more than 0)"),
    ("optimizer.no_decay_1d", 1, "optimizer.no_decay_1d: is 1 (expected true or false)"),
    ("optimizer.no_decay_2d", True, "did you mean no_decay_1d?"),
    (
        "lr_scheduler",
        {"type": "StepLR", "args": {"step_size": 0}},
        "lr_scheduler.args: {'step_size': 0} cannot be used",
    ),
    ("lr_scheduler", {"type": "OneCycleLR", "args": {"pct_start": 2.0}}, "lr_scheduler.args"),
    ("lr_scheduler", {"type": "ReduceLROnPlateau", "args": {"mode": "max"}}, "but the monitor is min val_loss"),
    ("arch", {"type": "LightCNN", "args": {"label_dim": 2, "indim": 3}}, "with indim 3, the items are (1, 224, 224)"),
    ("arch", {"type": "ASTModel", "args": {"label_dim": 2}}, "the items are (1, 224, 224)"),
]


@pytest.mark.parametrize(("key", "value", "says"), IMPOSSIBLE)
def test_an_impossible_combination_is_named(config, key, value, says):
    assert says in error_of(config, key, value)


def test_waveforms_have_their_own_rules(config):
    config["data_loader"]["args"]["input_dir"] = None
    config["arch"] = {"type": "LightCNN", "args": {"label_dim": 2}}
    for least in (0, 1e-5):
        assert f"duration: is {least}, shorter than one sample" in error_of(config, "data_loader.args.duration", least)
    config["data_loader"]["args"]["duration"] = 1.5
    masks = {"time_masks": 1}
    assert "masks features, but the input is waveforms" in error_of(config, "data_loader.args.augment", masks)
    del config["data_loader"]["args"]["augment"]
    assert "the items are (12000,)" in error_of(config, "data_loader.args.rate", 8000)
    assert "the items are (3, 224, 224)" in error_of(config, "data_loader.args.frontend", "wavelet")
    assert "did you mean n_mels?" in error_of(config, "data_loader.args.frontend", {"method": "mel", "nmels": 3})
    assert "frontend" in error_of(config, "data_loader.args.frontend", {"method": "melody"})
    check(config, data_loader__args__frontend="stft", data_loader__args__augment={"gain_db": 3, "time_masks": 1})


def test_a_plateau_needs_something_to_watch(config):
    plateau = {"type": "ReduceLROnPlateau"}
    check(config, lr_scheduler=plateau)
    check(config, lr_scheduler=plateau, trainer__monitor="off")
    config["data_loader"]["args"]["validation_split"] = 0
    assert "watches val_loss, but there is no validation" in error_of(config, "lr_scheduler", plateau)
    check(config, trainer__monitor="min loss")


def test_one_cycle_needs_no_arguments(config):
    check(config, lr_scheduler={"type": "OneCycleLR"})
    check(config, lr_scheduler={"type": "OneCycleLR", "args": {"max_lr": 0.1, "pct_start": 0.2}})


def test_the_old_config_passes_where_its_store_is(tiny_data, tmp_path):
    config = json.loads(OLD)
    shutil.copy(tiny_data / "task2.csv", tmp_path)
    config["data_loader"]["args"]["data_dir"] = str(tmp_path)
    with pytest.raises(UserError, match=r"processed_ast_wav2vec: .*python preprocess\.py .*--method ast_wav2vec"):
        check(config)
    fake_store(tmp_path, "ast_wav2vec", [768, 128])
    check(config)
    fake_store(tmp_path, "stft", [1, 224, 224])
    with pytest.raises(UserError, match=r"\(768, 128\), the items are \(1, 224, 224\)"):
        check(config, data_loader__args__input_dir="processed_stft")


def test_checking_writes_nothing(config, tmp_path):
    check(config)
    assert list(tmp_path.iterdir()) == []


def test_a_front_end_whose_method_is_no_name_is_refused(config):
    set_key(config, "data_loader.args.input_dir", None)
    assert "there is no feature method" in error_of(config, "data_loader.args.frontend", {"method": {"fold": 0}})


def test_a_front_end_that_hears_an_events_surroundings_is_refused_on_the_event_alone(config):
    set_key(config, "data_loader.args.input_dir", None)
    error = error_of(config, "data_loader.args.frontend", {"method": "multimel_event"})
    assert "hears what lies around an event" in error
    assert "set input_dir to processed_multimel_event" in error
