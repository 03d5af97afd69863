"""A file of the operator's, in TOML, that adds models, families and rules for images to the built-in ones."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from convgrpc.tokens.encodings import ENCODINGS
from convgrpc.tokens.families import FAMILIES, IMAGES, MODELS, Family, Model, Models
from convgrpc.tokens.images import Patches, Rule, Tiles

_TOO_MUCH = 2**31
_MAY_BE_NEGATIVE = "namespaced_call"
_DEFAULT_IMAGES = "tiles-85"
_WORDS = {int: "an integer", float: "a number", str: "a string", bool: "true or false", dict: "a table", list: "a list"}
_FAMILY_TYPES = {
    field.name: dict if field.name == "hosted" else int if field.name == "forced_function" else field.type
    for field in fields(Family)
    if field.name != "name"
}


class BadModelsFile(ValueError):
    """A file of models cannot be used; the message says why, for the operator."""


def read_models(path: str | Path) -> Models:
    """The table of models with what a file adds, which goes first. Raises `BadModelsFile`."""
    try:
        return _models(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BadModelsFile(f"{path}: {error}") from error


def _models(added: dict[str, Any]) -> Models:
    _check(added, "the file", {"families": dict, "images": dict, "models": list})
    families, images = dict(FAMILIES), dict(IMAGES)
    for name, row in added.get("images", {}).items():
        images[name] = _rule(row, f"images.{name}")
    for name, row in added.get("families", {}).items():
        families[name] = _family(name, row, families)
    models = [_model(row, f"models[{number}]", families, images) for number, row in enumerate(added.get("models", []))]
    return Models([*models, *MODELS], families, images)


def _check(row: Any, where: str, types: Mapping[str, Any], required: tuple[str, ...] = ()) -> None:
    """Checks that a table has keys of these names alone, with values of these types."""
    if type(row) is not dict:
        raise ValueError(f"{where} must be a table")
    for key, value in row.items():
        if key not in types:
            raise ValueError(f"{where}: '{key}' is not one of {', '.join(types)}")
        if type(value) is not types[key] and not (types[key] is float and type(value) is int):
            raise ValueError(f"{where}: '{key}' must be {_WORDS[types[key]]}")
        if types[key] in (int, float) and not (0 <= value < _TOO_MUCH or (key == _MAY_BE_NEGATIVE and -10 < value < 0)):
            raise ValueError(f"{where}: '{key}' must be from 0 to {_TOO_MUCH - 1}")
    for key in required:
        if key not in row:
            raise ValueError(f"{where}: '{key}' is missing")


def _rule(row: Any, where: str) -> Rule:
    kind: type[Tiles | Patches] = Tiles if isinstance(row, dict) and "tile" in row else Patches
    _check(row, where, get_type_hints(kind), tuple(name for name in kind._fields if name not in kind._field_defaults))
    return kind(**row)


def _family(name: str, row: Any, families: Mapping[str, Family]) -> Family:
    where = f"families.{name}"
    _check(row, where, {"like": str, **_FAMILY_TYPES}, ("like",))
    _check(row.get("hosted", {}), f"{where}.hosted", dict.fromkeys(row.get("hosted", {}), int))
    _check_is_one_of(row["like"], families, f"{where}: 'like'")
    if "encoding" in row:
        _check_is_one_of(row["encoding"], ENCODINGS, f"{where}: 'encoding'")
    return replace(families[row["like"]], **{key: value for key, value in row.items() if key != "like"}, name=name)


def _model(row: Any, where: str, families: Mapping[str, Family], images: Mapping[str, Rule]) -> Model:
    _check(row, where, get_type_hints(Model), ("pattern", "family", "context_window"))
    model = Model(**{"images": _DEFAULT_IMAGES, **row})
    try:
        re.compile(model.pattern)
    except re.error as error:
        raise ValueError(f"{where}: 'pattern' is no regular expression: {error}") from None
    _check_is_one_of(model.family, families, f"{where}: 'family'")
    _check_is_one_of(model.images, images, f"{where}: 'images'")
    if model.context_window < 1:
        raise ValueError(f"{where}: 'context_window' must be positive")
    return model


def _check_is_one_of(value: str, known: Any, what: str) -> None:
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, not '{value}'")
