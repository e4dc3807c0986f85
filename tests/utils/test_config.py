from __future__ import annotations

import json
from argparse import Namespace

import pytest

from tests.tiny import tiny_config, write_config
from utils.config import ConfigParser, merge, parse_assignments, read_config
from utils.errors import UserError
from utils.registry import Registry


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path / "data", tmp_path / "saved")


def args(**values):
    return Namespace(**{"config": None, "resume": None, "run_id": None, "set": None, "lr": None, "bs": None} | values)


def test_extending_keeps_the_sibling_keys_of_every_level(tmp_path):
    base = {"seed": 3, "trainer": {"epochs": 9, "monitor": "off"}, "arch": {"type": "A", "args": {"x": 1, "y": 2}}}
    write_config(tmp_path / "base.json", base)
    (tmp_path / "sub").mkdir()
    write_config(tmp_path / "sub" / "middle.json", {"extends": "../base.json", "trainer": {"epochs": 5}})
    top = write_config(tmp_path / "top.json", {"extends": "sub/middle.json", "arch": {"args": {"y": 7}}})

    assert read_config(top) == {
        "seed": 3,
        "trainer": {"epochs": 5, "monitor": "off"},
        "arch": {"type": "A", "args": {"x": 1, "y": 7}},
    }


def test_another_type_drops_the_arguments_of_the_old_one():
    base = {"optimizer": {"type": "Adam", "args": {"amsgrad": True}}, "seed": 1}
    assert merge(base, {"optimizer": {"type": "SGD", "args": {"lr": 1}}}) == {
        "optimizer": {"type": "SGD", "args": {"lr": 1}},
        "seed": 1,
    }
    assert merge(base, {"optimizer": {"type": "Adam", "args": {"lr": 1}}})["optimizer"]["args"] == {
        "amsgrad": True,
        "lr": 1,
    }


def test_lists_and_null_replace_what_was_there():
    base = {"metrics": ["a", "b"], "lr_scheduler": {"type": "StepLR", "args": {"step_size": 1}}}
    assert merge(base, {"metrics": ["c"], "lr_scheduler": None}) == {"metrics": ["c"], "lr_scheduler": None}


def test_merging_leaves_the_base_as_it_was():
    base = {"trainer": {"epochs": 9}}
    merge(base, {"trainer": {"epochs": 2}})["trainer"]["epochs"] = 0
    assert base == {"trainer": {"epochs": 9}}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('{"seed": 1, "seed": 2}', "holds the key seed twice"),
        ('{"trainer": {"epochs": NaN}}', "not a readable JSON file"),
        ('{"seed": 1,}', "not a readable JSON file"),
        ("[1]", "not a JSON object"),
        ("", "not a readable JSON file"),
        ('{"extends": 3}', "name one file"),
        ('{"extends": "own.json"}', "extends itself"),
        ('{"extends": "nowhere.json"}', "no such config"),
    ],
)
def test_a_config_that_cannot_be_read_is_one_error_that_names_the_file(tmp_path, content, what):
    path = tmp_path / "own.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=what) as caught:
        read_config(path)
    assert str(tmp_path) in caught.value.subject


def test_a_missing_config_names_the_nearest_of_those_beside_it_or_all(tmp_path):
    for name in ("there.json", "elsewhere_else.json"):
        write_config(tmp_path / name, {})
    with pytest.raises(UserError, match=r"ther\.json: there is no such config \(did you mean there\.json\?\)"):
        read_config(tmp_path / "ther.json")
    with pytest.raises(UserError, match=r"\(choose from elsewhere_else\.json, there\.json\)"):
        read_config(tmp_path / "vgg.json")


def test_values_are_json_and_what_is_not_json_is_a_string():
    given = [
        "a.b=5",
        "a.c=[1, 2]",
        "d=max val_x",
        'e={"folds": 5}',
        "f=true",
        "g=null",
        "h=",
        "i=a=b",
        "j=NaN",
        "k=1e-4",
    ]
    assert parse_assignments(given) == {
        "a.b": 5,
        "a.c": [1, 2],
        "d": "max val_x",
        "e": {"folds": 5},
        "f": True,
        "g": None,
        "h": "",
        "i": "a=b",
        "j": "NaN",
        "k": 1e-4,
    }


@pytest.mark.parametrize("text", ["epochs", "=5", "a..b=5", ".a=5", "a.=5"])
def test_an_assignment_of_another_form_names_itself(text):
    with pytest.raises(UserError, match="not of the form"):
        parse_assignments([text])


def test_a_value_cut_at_its_blank_says_to_put_quotes():
    with pytest.raises(UserError, match=r"'val_loss' is not of the form a.b.c=value .*quotes around the whole"):
        parse_assignments(["trainer.monitor=min", "val_loss"])


def test_the_command_line_changes_the_config(tmp_path, config):
    path = write_config(tmp_path / "c.json", config)
    changed = ConfigParser.from_args(
        args(config=path, lr=0.5, bs=3, data_dir="elsewhere", set=["trainer.epochs=7", "optimizer.args.eps=1e-3"])
    )
    assert changed["optimizer"]["args"] == {"lr": 0.5, "eps": 1e-3}
    assert changed.get("data_loader.args.batch_size") == 3
    assert changed.get("data_loader.args.data_dir") == "elsewhere"
    assert changed.get("trainer.epochs") == 7
    assert changed.get("trainer.monitor") == "min val_loss"
    assert changed.get("trainer.nothing", 4) == 4


@pytest.mark.parametrize("lr", [float("inf"), float("nan")])
def test_a_learning_rate_that_is_no_number_is_one_error(tmp_path, config, lr):
    with pytest.raises(UserError, match="no number in JSON"):
        ConfigParser.from_args(args(config=write_config(tmp_path / "c.json", config), lr=lr))


def test_the_learning_rate_of_the_command_line_is_the_peak_of_one_cycle(tmp_path, config):
    config["lr_scheduler"] = {"type": "OneCycleLR", "args": {"max_lr": 0.1}}
    path = write_config(tmp_path / "c.json", config)
    assert ConfigParser.from_args(args(config=path, lr=0.5)).get("lr_scheduler.args.max_lr") == 0.5
    both = args(config=path, lr=0.5, set=["lr_scheduler.args.max_lr=0.2"])
    assert ConfigParser.from_args(both).get("lr_scheduler.args.max_lr") == 0.2


def test_set_does_not_look_into_what_has_no_keys(tmp_path, config):
    config["loss"] = "cross_entropy"
    path = write_config(tmp_path / "c.json", config)
    with pytest.raises(UserError, match="loss is 'cross_entropy' and has no keys"):
        ConfigParser.from_args(args(config=path, set=["loss.args.weight=balanced"]))


def test_without_a_config_that_of_the_checkpoint_is_taken(config):
    assert ConfigParser.from_args(args(bs=5), saved=config).get("data_loader.args.batch_size") == 5
    assert config["data_loader"]["args"]["batch_size"] == 16
    with pytest.raises(UserError, match="no config is named"):
        ConfigParser.from_args(args())


def test_objects_are_made_with_the_arguments_of_config_and_program(config):
    makers = Registry("maker")

    @makers.register()
    def box(*sizes, colour="red", lid=True):
        return sizes, colour, lid

    config["arch"] = {"type": "box", "args": {"colour": "blue", "lid": True}}
    parser = ConfigParser(config)
    assert parser.init_obj("arch", makers, 1, 2, lid=False) == ((1, 2), "blue", False)
    assert parser.init_ftn("arch", makers)(5) == ((5,), "blue", True)
    parser = ConfigParser(config | {"loss": "box"})
    assert parser.init_obj("loss", makers) == ((), "red", True)
    with pytest.raises(UserError, match=r"arch\.type: .*did you mean box"):
        ConfigParser(config | {"arch": {"type": "Bx"}}).init_obj("arch", makers)


def test_a_run_folder_holds_config_and_environment(config):
    parser = ConfigParser(config)
    parser.make_run_folders()
    assert json.loads((parser.save_dir / "config.json").read_text()) == config
    environment = json.loads((parser.save_dir / "environment.json").read_text())
    assert {"commit", "python", "libraries"} <= environment.keys()
    assert "torch" in environment["libraries"]


def test_runs_that_start_in_the_same_second_have_their_own_folders(config):
    parsers = [ConfigParser(config) for _ in range(4)]
    for parser in parsers:
        parser.make_run_folders()
    assert len({parser.save_dir for parser in parsers}) == 4
    assert len({parser.log_dir for parser in parsers}) == 4


def test_an_id_that_a_run_has_is_refused(config):
    ConfigParser(config, run_id="mine").make_run_folders()
    with pytest.raises(UserError, match="such a run already"):
        ConfigParser(config, run_id="mine").make_run_folders()


@pytest.mark.parametrize("run_id", ["../x", "a/b", "a\\b", "..", ".", "", "a\0b"])
def test_an_id_cannot_leave_the_folder_of_runs(config, run_id):
    with pytest.raises(UserError, match="--run_id"):
        ConfigParser(config, run_id=run_id)


def test_a_run_that_goes_on_keeps_its_folder_and_notes_its_new_config(config):
    first = ConfigParser(config)
    first.make_run_folders()
    environment = (first.save_dir / "environment.json").read_bytes()
    epochs, config["trainer"]["epochs"] = config["trainer"]["epochs"], 99
    second = ConfigParser(config, resume=first.save_dir / "checkpoint-epoch1.pth")
    second.make_run_folders()
    assert second.save_dir == first.save_dir
    # Not before it really goes on.
    assert json.loads((second.save_dir / "config.json").read_text())["trainer"]["epochs"] == epochs
    second.note_config(second.to_dict())
    assert json.loads((second.save_dir / "config.json").read_text())["trainer"]["epochs"] == 99
    assert (first.save_dir / "environment.json").read_bytes() == environment


def test_only_the_folders_of_a_new_run_are_discarded(config):
    first = ConfigParser(config)
    first.make_run_folders()
    second = ConfigParser(config, resume=first.save_dir / "checkpoint-epoch1.pth")
    second.make_run_folders()
    second.discard_run_folders()
    assert first.save_dir.is_dir()
    first.discard_run_folders()
    assert not first.save_dir.exists()


def test_a_place_that_cannot_be_written_is_one_error(tmp_path, config):
    (tmp_path / "file").write_text("")
    config["trainer"]["save_dir"] = str(tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot be written.*set trainer.save_dir"):
        ConfigParser(config).make_run_folders()


def test_a_name_with_a_null_byte_is_no_file(tmp_path):
    (tmp_path / "c.json").write_text('{"extends": "a\\u0000"}')
    with pytest.raises(UserError, match="cannot be a file's name"):
        read_config(tmp_path / "c.json")
