"""The feature methods and their parameters, read off the source: importing them would import PyTorch.

`preprocess.py --help` is there at once this way.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from utils.arguments import describe

FOLDER = Path(__file__).with_name("features")
_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None)}


def declared_parameters(folder: Path = FOLDER) -> dict[str, dict[str, tuple[Any, str]]]:
    """For each method, by name, its parameters: default value, and what it may be in words.

    A method is a function under ``@register_feature("name", ...)``, its parameters are the keyword-only ones.
    """
    methods = {}
    for path in sorted(folder.glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"), path)
        aliases = {
            target.id: statement.value
            for statement in module.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        for function in module.body:
            if isinstance(function, ast.FunctionDef) and (name := _method(function)):
                pairs = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
                methods[name] = {
                    p.arg: (_value(default, aliases), _words(p.annotation, aliases)) for p, default in pairs
                }
    return dict(sorted(methods.items()))


def _method(function: ast.FunctionDef) -> str | None:
    for decorator in function.decorator_list:
        match decorator:
            case ast.Call(
                func=ast.Name(id="register_feature") | ast.Attribute(attr="register_feature"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                return name
    return None


def _value(node: ast.expr | None, aliases: Mapping[str, ast.expr]) -> Any:
    """A default: a literal, or a constant of the module."""
    node = aliases.get(node.id) if isinstance(node, ast.Name) else node
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _words(node: ast.expr | None, aliases: Mapping[str, ast.expr]) -> str:
    """An annotation in words, as `describe` has them."""
    match node:
        case ast.Name(id=name) if name in aliases:
            return _words(aliases[name], aliases)
        case ast.Name(id=name) if name in _TYPES:
            return describe(_TYPES[name])
        case ast.Constant(value=None):
            return describe(type(None))
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return f"{_words(left, aliases)} or {_words(right, aliases)}"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            values = choices.elts if isinstance(choices, ast.Tuple) else [choices]
            return describe(Literal[tuple(map(ast.literal_eval, values))])
    return "a value"
