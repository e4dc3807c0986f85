"""The shape of a configuration: which keys there are and what they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from utils.errors import UserError, nearest

_NAMED = {
    "type": "object",
    "properties": {"type": {"type": "string"}, "args": {"type": "object"}},
    "required": ["type"],
    "additionalProperties": False,
    "description": 'an object with "type" and "args"',
}
_POSITIVE = {"type": "integer", "minimum": 1}


def _or_null(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"anyOf": [{"type": "null"}, schema], "description": f"{description}, or null"}


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {
            "type": "string",
            "pattern": r"^(?!\.{1,2}$)[^/\\\x00-\x1f]+$",
            "description": "the name of a folder",
        },
        "n_gpu": {"type": "integer", "minimum": 0},
        "seed": {"type": "integer", "minimum": 0},
        "arch": _NAMED,
        "data_loader": _NAMED,
        "optimizer": _or_null(_NAMED, _NAMED["description"]),
        "loss": {"anyOf": [{"type": "string"}, _NAMED], "description": f"a name, or {_NAMED['description']}"},
        "metrics": {"type": "array", "items": {"type": "string"}},
        "lr_scheduler": _or_null(_NAMED, _NAMED["description"]),
        "trainer": {
            "type": "object",
            "properties": {
                "epochs": _POSITIVE,
                "save_dir": {"type": "string"},
                "save_period": _POSITIVE,
                "save_every_minutes": _or_null({"type": "number", "exclusiveMinimum": 0}, "minutes above 0"),
                "save_every_steps": _or_null(_POSITIVE, "a whole number of at least 1"),
                "keep_last": _or_null(_POSITIVE, "a whole number of at least 1"),
                "verbosity": {"enum": [0, 1, 2]},
                "monitor": {
                    "type": "string",
                    "pattern": r"^(off|(min|max) \S+)$",
                    "description": '"off", or "min" or "max" and the name of a metric, as in "min val_loss"',
                },
                "early_stop": _or_null({"type": "integer", "minimum": 0}, "a whole number of epochs"),
                "tensorboard": {"type": "boolean"},
                "tensorboard_layers": {"type": "boolean"},
                "precision": {"enum": ["fp32", "bf16", "fp16", "auto"]},
                "grad_clip": _or_null({"type": "number", "exclusiveMinimum": 0}, "a number above 0"),
                "accumulate": _POSITIVE,
                "deterministic": {"type": "boolean"},
                "on_nonfinite": {"enum": ["stop", "skip"]},
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

    # JSON Schema takes 5.0 for an integer; range() does not.
    types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=types)(SCHEMA)
    error = jsonschema.exceptions.best_match(validator.iter_errors(config))
    if error is None:
        return
    error = _innermost(error)
    where = ".".join(str(part) for part in error.absolute_path) or "config"
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = sorted(set(error.instance) - set(known))[0]
        prefix = "" if where == "config" else f"{where}."
        raise UserError(f"{prefix}{unknown}", "is unknown", nearest(unknown, known))
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        raise UserError(where, f"lacks the key {missing}")
    raise UserError(where, f"is {json.dumps(error.instance, default=str)}", _expected(error))


def _innermost(error: Any) -> Any:
    """Of the errors of an anyOf, that of the choice which the value was meant to be, by its type."""
    while error.validator == "anyOf":
        meant = [inner for inner in error.context if inner.validator != "type" or inner.relative_path]
        if not meant:
            break
        # An unknown key says more than a missing one: it is most often the missing one misspelt.
        error = min(meant, key=lambda inner: inner.validator != "additionalProperties")
    return error


_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def _expected(error: Any) -> str:
    if "description" in error.schema:
        return f"expected {error.schema['description']}"
    if error.validator == "enum":
        return f"choose from {', '.join(map(str, error.validator_value))}"
    if error.validator == "minimum":
        return f"expected at least {error.validator_value}"
    if error.validator == "exclusiveMinimum":
        return f"expected more than {error.validator_value}"
    return f"expected {_TYPES[error.validator_value]}"
