"""The shape of a configuration: which keys there are and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from utils.errors import UserError, nearest

_NAMED = {
    "type": "object",
    "properties": {"type": {"type": "string"}, "args": {"type": "object"}},
    "required": ["type"],
    "additionalProperties": False,
}
_POSITIVE = {"type": "integer", "minimum": 1}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": r"^[^/\\]+$"},
        "n_gpu": {"type": "integer", "minimum": 0},
        "seed": {"type": "integer", "minimum": 0},
        "arch": _NAMED,
        "data_loader": _NAMED,
        "optimizer": _NAMED,
        "loss": {"anyOf": [{"type": "string"}, _NAMED]},
        "metrics": {"type": "array", "items": {"type": "string"}},
        "lr_scheduler": {"anyOf": [{"type": "null"}, _NAMED]},
        "trainer": {
            "type": "object",
            "properties": {
                "epochs": _POSITIVE,
                "save_dir": {"type": "string"},
                "save_period": _POSITIVE,
                "keep_last": {"anyOf": [{"type": "null"}, _POSITIVE]},
                "verbosity": {"enum": [0, 1, 2]},
                "monitor": {"type": "string", "pattern": r"^(off|(min|max) \S+)$"},
                "early_stop": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 0}]},
                "tensorboard": {"type": "boolean"},
                "precision": {"enum": ["fp32", "bf16", "fp16", "auto"]},
                "grad_clip": {"anyOf": [{"type": "null"}, {"type": "number", "exclusiveMinimum": 0}]},
                "accumulate": _POSITIVE,
                "deterministic": {"type": "boolean"},
            },
            "required": ["epochs"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "arch", "data_loader", "optimizer", "loss", "metrics", "trainer"],
    "additionalProperties": False,
}


def check_schema(config: Mapping[str, Any]) -> None:
    """Check keys and types of a configuration.

    Raises:
        UserError: names the key that is wrong, and the nearest valid one or what was expected.
    """
    import jsonschema

    validator = jsonschema.Draft202012Validator(SCHEMA)
    error = jsonschema.exceptions.best_match(validator.iter_errors(config))
    if error is None:
        return
    where = ".".join(str(part) for part in error.absolute_path) or "config"
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = sorted(set(error.instance) - set(known))[0]
        prefix = "" if where == "config" else f"{where}."
        raise UserError(f"{prefix}{unknown}", "is unknown", nearest(unknown, known))
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        raise UserError(where, f"lacks the key {missing}")
    raise UserError(where, f"is {error.instance!r}", _expected(error))


def _expected(error: Any) -> str:
    if error.validator == "enum":
        return f"choose from {', '.join(map(str, error.validator_value))}"
    if error.validator == "pattern" and error.absolute_path and error.absolute_path[-1] == "monitor":
        return 'expected "off", or "min" or "max" and the name of a metric, as in "min val_loss"'
    if error.validator == "minimum":
        return f"expected at least {error.validator_value}"
    if error.validator == "exclusiveMinimum":
        return f"expected more than {error.validator_value}"
    if error.validator == "type":
        return f"expected {error.validator_value}"
    return f"expected {error.schema}"
