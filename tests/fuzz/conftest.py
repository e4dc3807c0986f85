"""The count of what was tried; and no waiting for the disk."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch):
    """Thousands of small files: whether they would survive a power cut is not asked here."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def pytest_terminal_summary(terminalreporter) -> None:
    from tests.fuzz.harness import TRIED

    if TRIED:
        parts = [f"{name} {refused:,} of {tried:,}" for name, (tried, refused) in sorted(TRIED.items())]
        total = sum(tried for tried, _ in TRIED.values())
        terminalreporter.write_line(f"fuzz: {total:,} damaged inputs; refused: {', '.join(parts)}")
