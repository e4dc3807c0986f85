from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.tiny import ROOT


@pytest.fixture
def benchmark_script(monkeypatch):
    """Imports a script of benchmarks/ by its name, as the others there would."""

    def benchmark_script(name):
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return benchmark_script
