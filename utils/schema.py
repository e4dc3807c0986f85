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
_OPTIMIZER = {**_NAMED, "properties": {**_NAMED["properties"], "no_decay_1d": {"type": "boolean"}}}
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
        "optimizer": _or_null(_OPTIMIZER, _OPTIMIZER["description"]),
        "loss": {"anyOf": [{"type": "string"}, _NAMED], "description": f"a name, or {_NAMED['description']}"},
        "distillation": _or_null(
            {
                "type": "object",
                "properties": {
                    "soft_targets": {"type": "string"},
                    "weight": {"type": "number", "minimum": 0, "maximum": 1, "description": "a number from 0 to 1"},
                    "temperature": {"type": "number", "exclusiveMinimum": 0},
                },
                "additionalProperties": False,
            },
            'an object with "soft_targets", "weight" and "temperature"',
        ),
        "start_from": _or_null(
            {
                "type": "object",
                "properties": {
                    "checkpoint": {"type": "string"},
                    "except": {"type": "array", "items": {"type": "string"}, "description": "a list of modules"},
                },
                "required": ["checkpoint"],
                "additionalProperties": False,
            },
            'an object with "checkpoint" and "except"',
        ),
        "metrics": {"type": "array", "items": {"type": "string"}},
        "decide": {"enum": ["argmax", "counted"]},
        "recording_context": {"type": "boolean"},
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
                "ema": _or_null(
                    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "a number between 0 and 1"
                ),
                "on_nonfinite": {"enum": ["stop", "skip"]},
            },
            "required": ["epochs"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "arch", "data_loader", "optimizer", "loss", "metrics", "trainer"],
    "additionalProperties": False,
}


# A config that names others, which are trained together in folds; what else it holds is for those that extend it.
ENSEMBLE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        **{key: {} for key in SCHEMA["properties"]},
        "name": SCHEMA["properties"]["name"],
        "ensemble": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "description": "a list of config files, relative to this one",
        },
        "level": {"type": "integer", "const": 1, "description": "1"},
    },
    "required": ["name", "ensemble"],
    "additionalProperties": False,
}


def check_schema(config: Mapping[str, Any], schema: Mapping[str, Any] = SCHEMA) -> None:
    """Check keys and types of a configuration.

    Args:
        schema: what it has to be; of one run unless given.

    Raises:
        UserError: names the key that is wrong, and the nearest valid one or what was expected.
    """
    import jsonschema

    if "ensemble" in config and schema is SCHEMA:
        raise UserError("ensemble", "names configs that are trained together, each in folds", "add --folds 5")

    # JSON Schema takes 5.0 for an integer; range() does not.
    types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=types)(schema)
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
    if error.validator == "exclusiveMaximum":
        return f"expected less than {error.validator_value}"
    return f"expected {_TYPES[error.validator_value]}"
