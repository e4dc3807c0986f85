"""Fixtures that several tests share: a small synthetic data set with its tables and features, and the real one."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import torch

REAL = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "SPRSound"


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Two test processes, or a training beside the tests, must not fight for the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A synthetic set of 6 patients with tables and the stft store. Shared: read it, never write to it."""
    from data_loader.extract import extract
    from data_loader.features import methods
    from data_loader.synthetic import write_synthetic
    from data_loader.tables import build_tables, write_tables

    data_dir = tmp_path_factory.mktemp("tiny_data")
    write_synthetic(data_dir, patients=6, recordings_per_patient=3)
    tables = build_tables(data_dir)
    assert not tables.bad
    write_tables(tables, data_dir)
    extract(data_dir, methods["stft"], {}, {task: tables.of(task) for task in (1, 2)}, tables.digests)
    return data_dir


@pytest.fixture
def own_data(tiny_data, tmp_path) -> Path:
    """A copy of the tiny set that a test may change."""
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real training set, read-only; the test is skipped where it is not."""
    if not (REAL / "BioCAS2022").is_dir():
        pytest.skip("the SPRSound recordings are not here")
    return REAL


@pytest.fixture(scope="session")
def real_tables(real_data):
    """The tables of the real training set, in memory; its folder is not written to."""
    from data_loader.tables import build_tables

    return build_tables(real_data)


@pytest.fixture
def own_sigterm():
    """run_script takes over SIGTERM."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def forked_parts():
    """The runs of a group are forks, which need not import PyTorch."""
    from tests.group_run import ForkedRun
    from trainer import part_runs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_runs, "start", ForkedRun)
        patch.setattr(part_runs, "_LOOK", 0.02)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What a test logs may be no text, which one process of the suite cannot send to the other."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
