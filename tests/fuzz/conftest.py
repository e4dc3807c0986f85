"""The count of what was tried; and no waiting for the disk."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch):
    """Thousands of small files: whether they would survive a power cut is not asked here."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def pytest_sessionfinish(session) -> None:
    from tests.fuzz.harness import TRIED

    # One of several processes: it tells its counts to the first one.
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["fuzz"] = TRIED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    from tests.fuzz.harness import TRIED

    for name, (tried, refused) in getattr(node, "workeroutput", {}).get("fuzz", {}).items():
        ours = TRIED.setdefault(name, [0, 0])
        ours[0] += tried
        ours[1] += refused


def pytest_terminal_summary(terminalreporter) -> None:
    from tests.fuzz.harness import TRIED

    if TRIED:
        parts = [f"{name} {refused:,} of {tried:,}" for name, (tried, refused) in sorted(TRIED.items())]
        total = sum(tried for tried, _ in TRIED.values())
        terminalreporter.write_line(f"fuzz: {total:,} damaged inputs; refused: {', '.join(parts)}")
