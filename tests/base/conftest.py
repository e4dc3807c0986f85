from __future__ import annotations

import pytest

from base.run_files import announce_run
from tests.base.scripted import Scripted
from tests.tiny import tiny_config
from utils.config import ConfigParser


@pytest.fixture
def make(tmp_path):
    def make(values, resume=None, run_id=None, **changes):
        changes = {"epochs": len(values), **changes}
        config = tiny_config("data", tmp_path / "saved", **{f"trainer__{k}": v for k, v in changes.items()})
        config = ConfigParser(config, run_id=run_id, resume=resume)
        config.make_run_folders()
        announce_run(config)
        return Scripted(config, values)

    return make
