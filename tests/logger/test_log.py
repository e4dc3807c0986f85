import io
import logging
import sys

import pytest
from tqdm import tqdm

from logger.log import get_logger, setup_logging
from tests.full_disk import full_disk
from utils.errors import UserError


@pytest.fixture(autouse=True)
def _restore():
    yield
    root = logging.getLogger("resp")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.NOTSET)


def test_messages_reach_the_console_and_the_file(tmp_path, capsys):
    setup_logging(tmp_path / "run", verbosity=1)
    get_logger("trainer").info("epoch 1 done")
    get_logger("trainer").warning("no GPU")
    assert capsys.readouterr().err == "epoch 1 done\nwarning: no GPU\n"
    lines = (tmp_path / "run" / "train.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "INFO resp.trainer: epoch 1 done",
        "WARNING resp.trainer: no GPU",
    ]


@pytest.mark.parametrize("verbosity, shown", [(0, "warning: w\n"), (1, "i\nwarning: w\n"), (2, "d\ni\nwarning: w\n")])
def test_verbosity_governs_the_console_and_not_the_file(tmp_path, capsys, verbosity, shown):
    setup_logging(tmp_path, verbosity)
    log = get_logger("x")
    log.debug("d"), log.info("i"), log.warning("w")
    assert capsys.readouterr().err == shown
    assert len((tmp_path / "train.log").read_text().splitlines()) == 3


def test_a_resumed_run_appends_and_no_message_comes_twice(tmp_path, capsys):
    for message in ("first", "second"):
        setup_logging(tmp_path)
        get_logger("x").info(message)
    assert [line.split()[-1] for line in (tmp_path / "train.log").read_text().splitlines()] == ["first", "second"]
    assert capsys.readouterr().err == "first\nsecond\n"


def test_a_message_does_not_break_a_progress_bar(monkeypatch):
    console = io.StringIO()
    monkeypatch.setattr(sys, "stderr", console)
    setup_logging(None)
    with tqdm(total=2, desc="train", file=console, mininterval=0) as bar:
        bar.update()
        get_logger("x").info("loss fell")
    # The bar is wiped, the message has a line of its own, and the bar is drawn again below it.
    before, after = console.getvalue().split("loss fell\n")
    assert before.endswith("\r")
    assert after.lstrip("\r").startswith("train:")


def test_names_that_are_no_text_are_still_logged(tmp_path):
    setup_logging(tmp_path, verbosity=0)
    get_logger("x").info("bad file %s", b"a\xff.wav".decode("utf-8", "surrogateescape"))
    assert "a\\udcff.wav" in (tmp_path / "train.log").read_text()


def test_a_full_disk_is_one_warning_and_the_log_keeps_what_it_had(tmp_path, capsys):
    setup_logging(tmp_path, verbosity=1)
    log = get_logger("x")
    log.info("first")
    before = (tmp_path / "train.log").read_text()
    capsys.readouterr()
    with full_disk(len(before) + 10):
        for number in range(3):
            log.info("message %d", number)
        setup_logging(None)
    err = capsys.readouterr().err
    assert [line for line in err.splitlines() if "message" not in line] == [
        f"warning: {tmp_path / 'train.log'}: cannot be written: File too large (the run goes on without)"
    ]
    assert err.count("message") == 3
    assert (tmp_path / "train.log").read_text().startswith(before)


def test_a_log_that_cannot_be_opened_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run/train\.log: cannot be written: Not a directory"):
        setup_logging(tmp_path / "file" / "run")
