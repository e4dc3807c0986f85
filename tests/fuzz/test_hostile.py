"""Files and names made to do harm."""

from __future__ import annotations

import ast
import builtins
import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from data_loader import data_loaders
from data_loader.features import methods
from data_loader.features.wav2vec_network import load_network
from model import architectures, losses, metrics
from model.weights import read_state_dict
from tests.fuzz.harness import answer, fuzz
from tests.tiny import ROOT, tiny_config
from trainer.optimization import lr_schedulers, optimizers
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import ConfigParser
from utils.errors import UserError

SOURCES = [
    path
    for name in ("base", "benchmarks", "data_loader", "logger", "model", "trainer", "utils")
    for path in (ROOT / name).rglob("*.py")
]
SOURCES += sorted(ROOT.glob("*.py"))

FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "pd.read_pickle",
    "joblib.load",
    "yaml.load",
}
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "pty", "commands"}


def violations(source: str) -> list[str]:
    """What may run code that comes from outside: an interpreter, a shell, an unpickler."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in FORBIDDEN_IMPORTS]
        elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN_IMPORTS:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in FORBIDDEN_CALLS or (name.startswith("os.exec") or name.startswith("os.spawn")):
            found.append(name)
        if name.startswith("subprocess.") and "shell" in given:
            found.append(f"{name}(shell=...)")
        if name == "torch.load" and given.get("weights_only") != "True":
            found.append("torch.load without weights_only")
        if name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False":
            found.append("np.load with pickles")
    return found


def test_no_source_runs_what_comes_from_outside():
    # The names of pickle's errors, not its loaders.
    allowed = {ROOT / "utils" / "checkpoint.py": ["pickle"]}
    found = {str(path): violations(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: names for path, names in found.items() if names and names != allowed.get(Path(path))} == {}
    assert len(SOURCES) > 50
    assert "pickle.load" not in (ROOT / "utils" / "checkpoint.py").read_text()


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run('ls', shell=True)",
        "os.system('ls')",
    ],
)
def test_the_search_finds_what_it_is_for(source):
    assert violations(source)


REGISTRIES = {
    "architectures": architectures,
    "losses": losses,
    "metrics": metrics,
    "data loaders": data_loaders,
    "methods": methods,
    "optimizers": optimizers,
    "schedules": lr_schedulers,
}
PLACES = [
    "arch.type",
    "data_loader.type",
    "optimizer.type",
    "loss.type",
    "lr_scheduler.type",
    "metrics",
    "data_loader.args.frontend",
]


def test_registries_hold_what_is_meant_and_nothing_else():
    assert all(
        issubclass(item, torch.optim.Optimizer) and item is not torch.optim.Optimizer for item in optimizers.values()
    )
    schedule = torch.optim.lr_scheduler.LRScheduler
    assert all(issubclass(item, schedule) and item is not schedule for item in lr_schedulers.values())
    assert all(issubclass(item, nn.Module) for registry in (architectures, losses) for item in registry.values())
    assert all(callable(item) for item in metrics.values())


def test_a_name_in_a_config_is_a_registered_one_or_an_error(tiny_data, tmp_path):
    from trainer.check import check_config

    attributes = sorted({*dir(torch.optim), *dir(torch.optim.lr_scheduler), *dir(builtins), *dir(os), *dir(nn.Module)})
    dotted = [
        "os.system",
        "torch.optim.lr_scheduler.__builtins__",
        "lr_scheduler.sys",
        "model.lightcnn.LightCNN",
        "../lightcnn",
        "__main__",
    ]
    names = st.one_of(
        st.sampled_from(attributes),
        st.sampled_from(dotted),
        st.builds("{}.{}".format, st.sampled_from(attributes), st.sampled_from(attributes)),
    )
    registered = {name for registry in REGISTRIES.values() for name in registry}

    def refused(drawn):
        place, name = drawn
        config = tiny_config(tiny_data, tmp_path)
        if place == "metrics":
            config["metrics"] = [name]
        elif place == "data_loader.args.frontend":
            config["data_loader"]["args"] |= {"input_dir": None, "frontend": name}
        else:
            config[place.partition(".")[0]] = {"type": name, "args": {}}
        result = answer(lambda: check_config(ConfigParser(config)), place.partition(".")[0], "config")
        if name not in registered:
            assert isinstance(result, UserError)
            assert place.partition(".")[0] in result.subject
        return isinstance(result, UserError)

    fuzz("name", 120, st.tuples(st.sampled_from(PLACES), names), refused)


class Runs:
    """Unpickled, it would call a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Builds:
    """Unpickled, it would run in `__setstate__`."""

    def __reduce__(self):
        return nn.Module, (), {"hook": Runs(os.mkdir, "never")}


def attacks(marker):
    """By name, objects that make a folder when they are unpickled, or would."""
    make = f"__import__('os').mkdir({str(marker)!r})"
    return {
        "os.system": Runs(os.system, f"mkdir {marker}"),
        "posix.mkdir": Runs(os.mkdir, str(marker)),
        "eval": Runs(eval, make),
        "exec": Runs(exec, make),
        "getattr": Runs(getattr, Runs(__import__, "os"), "mkdir"),
        "Popen": Runs(subprocess.Popen, ["mkdir", str(marker)]),
        "open": Runs(open, str(marker), "w"),
        "import": Runs(__import__, "antigravity"),
        "touch": Runs(Path.touch, marker),
        "module": nn.Linear(2, 2),
        "state": Builds(),
        "torch.load": Runs(torch.load, str(marker)),
    }


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "ran"


WHOLE = {"version": 1, "config": {}, "epoch": 1, "state_dict": {"w": torch.zeros(2)}, "classes": ["a"], "input": {}}
WAYS = {
    "zip": lambda value: _saved(value),
    "legacy": lambda value: _saved(value, _use_new_zipfile_serialization=False),
    "pickle": pickle.dumps,
    "pickle 0": lambda value: pickle.dumps(value, protocol=0),
    "pickle 5": lambda value: pickle.dumps(value, protocol=5),
    "zip 4": lambda value: _saved(value, pickle_protocol=4),
}


def _saved(value, **options):
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def test_text_for_tensorboard_and_for_markdown_tables_stays_text(tmp_path):
    from benchmarks.harness import cell
    from logger.tensorboard import TensorboardWriter

    pieces = [
        "<script>",
        "</td>",
        "<img src=x onerror=alert(1)>",
        "```",
        "\n```\n",
        "|",
        "\n",
        "&lt;",
        "[a](javascript:b)",
        "$",
        "\udcff",
        "a",
    ]
    texts = st.lists(st.sampled_from(pieces), min_size=1, max_size=6).map("".join)

    def check(text):
        shown = cell(text)
        assert "\n" not in shown
        assert "<" not in shown
        assert "|" not in shown.replace("\\|", "")
        writer = TensorboardWriter(tmp_path, enabled=True)
        written = []
        writer._writers["batch"].add_text = lambda tag, value, step: written.append(value)
        writer.config({"name": text, text: [text]})
        writer.close()
        # All of it within one block of code, which the viewer shows as it is.
        assert written[0].startswith("```json\n")
        assert written[0].endswith("\n```")
        assert not any(line.startswith("```") for line in written[0].splitlines()[1:-1])
        return False

    fuzz("text", 60, texts, check)


def test_code_in_a_file_is_refused_and_does_not_run(tmp_path, marker):
    known = attacks(marker)
    places = {
        "all": lambda attack: attack,
        "key": lambda attack: WHOLE | {"extra": attack},
        "config": lambda attack: WHOLE | {"config": {"name": attack}},
        "weight": lambda attack: {"state_dict": {"w": attack}},
        "list": lambda attack: [torch.zeros(2), attack],
    }
    readers = {
        "a.pth": load_checkpoint,
        "b.pth": read_state_dict,
        "c.safetensors": read_state_dict,
        "d.pth": lambda path: load_network(str(path)),
    }

    def check(drawn):
        attack, place, way, name = drawn
        path = tmp_path / name
        path.write_bytes(WAYS[way](places[place](known[attack])))
        result = answer(lambda: readers[name](path), path)
        assert isinstance(result, UserError)
        assert not marker.exists()
        assert "antigravity" not in sys.modules
        return True

    drawn = st.tuples(*(st.sampled_from(sorted(choices)) for choices in (known, places, WAYS, readers)))
    fuzz("code", 150, drawn, check)


def test_the_refusal_of_code_names_it_and_says_why(tmp_path, marker):
    for reader in (load_checkpoint, read_state_dict):
        (tmp_path / "a.pth").write_bytes(_saved(WHOLE | {"extra": Runs(os.system, f"mkdir {marker}")}))
        with pytest.raises(UserError, match=r"a\.pth: is not loaded: it holds posix\.system, .* could run code"):
            reader(tmp_path / "a.pth")
    assert not marker.exists()


def test_a_bomb_of_a_checkpoint_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    save_checkpoint(path, WHOLE)
    whole = zipfile.ZipFile(path)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        for info in whole.infolist():
            bomb.writestr(info.filename, whole.read(info))
        with bomb.open("archive/data/9", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
    path.write_bytes(out.getvalue())
    for reader in (load_checkpoint, read_state_dict):
        assert isinstance(answer(lambda reader=reader: reader(path), path), UserError)


@pytest.mark.parametrize(
    "claim", [b"c__builtin__\nbytearray\n", b"ctorch\nFloatStorage\n", b"ctorch.storage\nUntypedStorage\n"]
)
def test_a_pickle_that_asks_for_memory_gets_none_to_keep(tmp_path, claim):
    """What may be called by name in a file of tensors takes sizes too; the claim is refused or given back."""
    path = tmp_path / "a.pth"
    save_checkpoint(path, WHOLE)
    out = io.BytesIO()
    # protocol 2, the callable, (2**40,), REDUCE, STOP
    pickled = b"\x80\x02" + claim + b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85R."
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, pickled if info.filename.endswith("data.pkl") else old.read(info))
    path.write_bytes(out.getvalue())
    with pytest.raises(UserError, match=r"a\.pth: is not a checkpoint"):
        load_checkpoint(path)
