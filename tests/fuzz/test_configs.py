"""Damaged and nonsensical configs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

from tests import sounds
from tests.fuzz.harness import answer, damaged, edited, edits, fuzz, values
from tests.tiny import ROOT, tiny_config
from utils.config import ConfigParser, parse_assignments, read_config
from utils.errors import UserError

# Without those that name others, which are trained in folds.
SHIPPED = [path for path in sorted((ROOT / "configs").glob("*.json")) if "ensemble" not in read_config(path)]
SHAPES = {"stft": [1, 224, 224], "ast": [256, 128], "ast_wav2vec": [768, 128], "wav2vec": [1, 224, 224]}
SHAPES |= {"summary": [180], "multimel": [4, 64, 1232], "multimel_event": [4, 64, 192]}
# Names that are there, or that an attribute look-up would find.
NAMES = [
    "LightCNN",
    "ResNet18",
    "RespDataLoader",
    "cross_entropy",
    "focal",
    "Adam",
    "SGD",
    "OneCycleLR",
    "StepLR",
    "Optimizer",
]
NAMES += [
    "LRScheduler",
    "ReduceLROnPlateau",
    "CyclicLR",
    "CosineAnnealingWarmRestarts",
    "__class__",
    "__builtins__",
    "os.system",
]
NAMES += [
    "torch.nn.Linear",
    "lr_scheduler.sys",
    "processed_stft",
    "processed_ast",
    "../..",
    "min val_loss",
    "max accuracy",
    "balanced",
]
LIKELY = [0, 1, 2, 3, 16, 0.1, 0.5, 1.0, 10.0, 1e-9, True, False, None, [1, 1], [0.9, 0.99], {"folds": 2, "fold": 1}]
LARGE = [10**6, 10**9, 10**12, 1e9, {"folds": 10**9, "fold": 0}, [10**9]]
some = st.one_of(
    values, st.sampled_from(NAMES), st.sampled_from(LIKELY), st.sampled_from(LIKELY), st.sampled_from(LARGE)
)


@pytest.fixture(scope="module")
def data_dir(tiny_data, tmp_path_factory) -> Path:
    """The tables, what a description of the features that the shipped configs take says, and other data sets."""
    folder = tmp_path_factory.mktemp("data")
    sounds.write_urbansound8k(folder, folds=1, classes=sounds.URBAN_TEN)
    sounds.write_fma(folder)
    sounds.write_icbhi(folder)
    for table in tiny_data.glob("*.csv"):
        shutil.copy(table, folder)
    meta = json.loads((tiny_data / "processed_stft" / "meta.json").read_text())
    for method, shape in SHAPES.items():
        (folder / f"processed_{method}").mkdir()
        (folder / f"processed_{method}" / "meta.json").write_text(
            json.dumps(meta | {"method": method, "shape": shape})
        )
    return folder


WAVEFORMS = {"input_dir": None, "duration": 0.5, "rate": 8000, "augment": {"gain_db": 6, "noise_db": 20, "shift": 0.5}}
MEL = {
    "method": "mel",
    "n_mels": 40,
    "window_ms": 25.0,
    "hop_ms": 10.0,
    "f_min": 0.0,
    "f_max": 4000.0,
    "duration": 2.0,
    "fit": "pad",
}


def checked(config: dict) -> None:
    from trainer.check import check_config

    check_config(ConfigParser(config))


def test_the_shipped_configs_are_accepted(data_dir):
    for path in SHIPPED:
        config = read_config(path)
        if "data_dir" in config["data_loader"]["args"]:
            config["data_loader"]["args"]["data_dir"] = str(data_dir)
        checked(config)


def test_a_shipped_config_with_any_values_is_accepted_or_refused(data_dir):
    configs = {path.stem: read_config(path) for path in SHIPPED}
    configs["waveforms"] = tiny_config(data_dir, Path("saved"), arch={"type": "ResNet18", "args": {"label_dim": 2}})
    configs["waveforms"]["data_loader"]["args"] |= WAVEFORMS | {"frontend": MEL}
    for config in configs.values():
        config["data_loader"]["args"]["data_dir"] = str(data_dir)
    # Half of the examples for the one that has most to change.
    names = st.one_of(st.just("waveforms"), st.sampled_from(sorted(configs)))
    strategy = names.flatmap(lambda name: st.tuples(st.just(name), edits(configs[name], some)))

    def refused(drawn):
        name, changes = drawn
        return isinstance(answer(lambda: checked(edited(configs[name], changes))), UserError)

    fuzz("config", 250, strategy, refused)


def test_a_damaged_config_file_is_read_or_refused(tmp_path, data_dir):
    folder = tmp_path / "configs"
    shutil.copytree(ROOT / "configs", folder)
    path = folder / "task1_1_lightcnn.json"

    def refused(content):
        path.write_bytes(content)

        def check():
            config = read_config(path)
            config.setdefault("data_loader", {}).setdefault("args", {})["data_dir"] = str(data_dir)
            checked(config)

        return isinstance(answer(check), UserError)

    fuzz("config", 150, damaged(path.read_bytes()), refused)


def test_extending_anything_is_an_answer(tmp_path):
    names = ["a.json", "b.json", "c.json", "deep/d.json"]
    (tmp_path / "deep").mkdir()
    other = st.sampled_from(
        [*names, "../a.json", "..", ".", "", "/dev/zero", "/etc/passwd", "x" * 300, "nul\0", "\ud800", "deep", "n/o"]
    )
    files = st.fixed_dictionaries({name: st.one_of(other, st.none(), values) for name in names})

    def refused(extends):
        for name, base in extends.items():
            (tmp_path / name).write_text(json.dumps({"extends": base, "seed": 1}))
        return isinstance(answer(lambda: read_config(tmp_path / "a.json"), tmp_path, "/", "extends"), UserError)

    fuzz("config", 80, files, refused)


def test_assignments_of_the_command_line_may_be_anything(data_dir, tmp_path):
    config = tiny_config(data_dir, tmp_path)
    keys = [
        "seed",
        "name",
        "trainer.epochs",
        "trainer.save_dir",
        "arch.args.label_dim",
        "data_loader.args.frontend",
        "loss",
    ]
    keys += [
        "data_loader.args.input_dir",
        "data_loader.args.augment.time_masks",
        "data_loader.args.duration",
        "optimizer.args.lr",
    ]
    keys += [
        "lr_scheduler.type",
        "data_loader.args.num_workers",
        "data_loader.args.validation_split",
        "metrics",
        "extends",
        "a.b.c",
    ]
    texts = [
        "",
        "null",
        "1",
        "-1",
        "NaN",
        "1e999",
        "[]",
        "{}",
        '{"a": 1, "a": 2}',
        "[" * 2000,
        '"x"',
        "x",
        "[1, 2",
        "9" * 5000,
    ]
    assignment = st.builds(
        "{}={}".format,
        st.one_of(st.sampled_from(keys), st.text(max_size=9)),
        st.one_of(st.sampled_from(texts), st.text(max_size=6)),
    )

    def refused(assignments):
        from utils.config import set_key

        def check():
            changed = json.loads(json.dumps(config))
            for key, value in parse_assignments(assignments).items():
                set_key(changed, key, value)
            checked(changed)

        return isinstance(answer(check), UserError)

    fuzz("config", 150, st.lists(assignment, min_size=1, max_size=3), refused)


@pytest.mark.parametrize(("given", "examples"), [({}, 60), (WAVEFORMS | {"frontend": "stft"}, 15)])
def test_a_config_that_is_accepted_trains(tiny_data, tmp_path, given, examples):
    """What passes the check has to train an epoch, or to be refused for what the check cannot know."""
    from trainer.check import check_config
    from trainer.setup import make_trainer

    config = tiny_config(
        tiny_data, tmp_path / "saved", trainer__epochs=1, trainer__keep_last=2, trainer__grad_clip=1.0
    )
    config["data_loader"]["args"] |= {
        "augment": {"time_masks": 1, "time_width": 0.1, "time_axis": -1},
        "validation_split": {"folds": 3, "fold": 0},
        "normalize": 0.5,
        "balance": "none",
        "shuffle": True,
        "num_workers": 0,
        **given,
    }
    config["optimizer"]["args"] |= {"betas": [0.9, 0.99], "eps": 1e-8, "weight_decay": 0.1, "amsgrad": False}
    config["loss"]["args"] |= {"label_smoothing": 0.1}
    config["lr_scheduler"] = {"type": "OneCycleLR", "args": {"pct_start": 0.3, "max_lr": 0.1}}
    config["trainer"] |= {"accumulate": 1, "early_stop": None, "save_period": 1}
    # Kept as they are: what would take long, start processes or write elsewhere.
    keep = {("trainer", "epochs"), ("trainer", "save_dir"), ("trainer", "tensorboard")}
    keep |= {("data_loader", "args", "data_dir"), ("data_loader", "args", "num_workers")}

    def train(changed):
        parser = ConfigParser(changed)
        check_config(parser)
        parser.make_run_folders()
        try:
            trainer = make_trainer(parser, torch.device("cpu"))
        except UserError:
            parser.discard_run_folders()
            raise
        trainer.finish(trainer.train())

    def refused(changes):
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        changed = edited(config, [change for change in changes if change.path not in keep])
        result = answer(lambda: train(changed))
        # A run that ended at a loss that is not finite keeps its log.
        if isinstance(result, UserError) and "finite" not in result.what:
            assert not list((tmp_path / "saved").glob("models/*/*"))
        return isinstance(result, UserError)

    fuzz("config", examples, edits(config, some), refused)
