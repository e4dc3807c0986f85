from __future__ import annotations

from typing import get_type_hints

from data_loader.feature_flags import declared_parameters
from data_loader.features import methods
from utils.arguments import describe


def test_what_is_read_off_the_source_is_what_is_registered():
    declared = declared_parameters()
    assert list(declared) == sorted(methods)
    for name, feature in methods.items():
        hints = get_type_hints(feature.compute)
        assert declared[name] == {key: (value, describe(hints[key])) for key, value in feature.defaults.items()}


def test_a_new_file_with_a_feature_is_found(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import nothing_that_exists\n"
        "SIZE = 3\n"
        "def helper(*, no_parameter=1): ...\n"
        "@register_feature('loudness', unit_range=True)\n"
        "def loudness(waveforms, rate, lengths, *, parts: int = SIZE, odd: list[int] | None = None, bare=1.5): ...\n"
        "@features.register_feature('rest')\n"
        "def other(waveforms, rate, lengths): ...\n"
    )
    assert declared_parameters(tmp_path) == {
        "loudness": {
            "parts": (3, "a whole number"),
            "odd": (None, "a value or null"),
            "bare": (1.5, "a value"),
        },
        "rest": {},
    }
