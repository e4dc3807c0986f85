from __future__ import annotations

import argparse
import gc
import os
import select
import signal
import subprocess
import sys
import weakref

import pytest

from tests.tiny import ROOT
from utils.cli import (
    Stopped,
    add_device_option,
    choose_visible_devices,
    make_parser,
    n_devices,
    positive,
    quick_imports,
    run_script,
)
from utils.errors import UserError


@pytest.fixture(autouse=True)
def _signals():
    """run_script takes over SIGTERM, as a script may."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def status(main, argv=()):
    return run_script(main, make_parser("test"), argv)


def raises(error):
    def main(args):
        raise error

    return main


def test_quick_imports_search_no_garbage_and_put_the_search_back():
    with quick_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), quick_imports():
        import no_such_module  # noqa: F401
    assert gc.isenabled()


def test_success_is_0():
    assert status(lambda args: None) == 0


def test_a_mistake_of_the_user_is_one_line_and_1(capsys):
    assert status(raises(UserError("a\nfile\x1b[31m.wav", "is\nbroken", "mend it"))) == 1
    assert capsys.readouterr().err == "error: a file [31m.wav: is broken (mend it)\n"


def test_the_traceback_is_shown_on_request(capsys):
    assert status(raises(UserError("x", "is wrong")), ["--debug"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("error: x: is wrong\n")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        status(lambda args: 1 / 0)


def test_signals_have_their_exit_status():
    assert status(raises(KeyboardInterrupt())) == 130
    assert status(raises(Stopped(signal.SIGINT))) == 130
    assert status(lambda args: os.kill(os.getpid(), signal.SIGTERM)) == 143


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_callback_that_drops_errors_ends_the_script_too(signum):
    """As in the midst of an import."""

    class Thing:
        pass

    def main(args):
        thing = Thing()
        watch = weakref.ref(thing, lambda _: os.kill(os.getpid(), signum))
        del thing
        # The signal ends this; a lost one must not make the test wait for ever.
        select.select([], [], [], 30)
        assert watch() is None

    # A shell that starts the suite in the background has it ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert status(main) == 128 + signum
    finally:
        signal.signal(signal.SIGINT, before)


def test_wrong_usage_is_2(capsys):
    with pytest.raises(SystemExit) as caught:
        status(lambda args: None, ["--nonsense"])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("device", "count"), [(None, None), ("cpu", 0), ("3", 1), ("0,1", 2), ("GPU-1a2b,MIG-GPU-3c/1/0", 2)]
)
def test_the_devices_that_are_named_are_counted(device, count):
    assert n_devices(device) == count


def test_devices_are_shown_to_cuda_as_named(monkeypatch):
    parser = make_parser("test")
    add_device_option(parser)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    choose_visible_devices(parser.parse_args([]).device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    # train.py --folds hands each of its runs one of those that it was shown itself, under the same name.
    for names in ("0,1", "GPU-5b5e0e9a-1d3c-aaaa", "MIG-GPU-5b5e0e9a/7/0"):
        choose_visible_devices(parser.parse_args(["-d", names]).device)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == names
    choose_visible_devices(parser.parse_args(["-d", "cpu"]).device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("text", ["gpu", "0,", "", "-1", "0 1", "cuda:0", "GPU-", "GPU-1,;"])
def test_what_names_no_device_is_wrong_usage(text, capsys):
    parser = make_parser("test")
    add_device_option(parser)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([f"--device={text}"])
    assert caught.value.code == 2
    assert "neither" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["train", "test", "preprocess"])
def test_help_is_quick_and_names_every_option(script):
    code = (
        f"import sys, {script}\n"
        f"text = {script}.parser().format_help()\n"
        "assert not {'torch', 'numpy', 'pandas', 'scipy'} & sys.modules.keys()\n"
        "print(text)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    options = {
        "train": (
            "-c",
            "-r",
            "-d",
            "--lr",
            "--bs",
            "--run_id",
            "--set",
            "--data-dir",
            "torchrun",
            "saved/model_best.pth",
        ),
        "preprocess": ("--method", "--workers", "--mel-n-mels", "--ast-frontend", "--demo", "--data-dir"),
        "test": ("-r", "-d", "--split", "--wav", "--out", "--out-dir", "--bs", "--data-dir", "metrics.json"),
    }
    assert not [option for option in options[script] if option not in done.stdout]


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", ""])
def test_counts_are_whole_numbers_above_0(text):
    assert positive("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="not a whole number above 0"):
        positive(text)


def test_an_error_that_shows_a_huge_value_keeps_its_beginning_and_its_hint(capsys):
    assert status(raises(UserError("c.json", f"is {'9' * 100_000}", "expected a number"))) == 1
    line = capsys.readouterr().err
    assert len(line) < 1100
    assert line.startswith("error: c.json: is 999")
    assert line.endswith("(expected a number)\n")
