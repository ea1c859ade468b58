"""Merging what a person, a file and a recipe ask for into one `Config`, with every origin kept.

A `Layer` is one source of values in canonical form: options live in `model_options` and the like,
however they were written (`model.widths`, `model: {widths: ...}`). Later layers win key by key; a
budget replaces the budgets below it, and naming another model, optimizer, schedule or task drops
the options that belonged to the old one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from gipi.core.config import BUDGETS, Config
from gipi.core.errors import ConfigError, nearest
from gipi.core.yamlfile import parse_document, parse_value, read_yaml, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

SECTIONS: dict[str, str] = {
    "model": "model_options", "task": "task_options", "optimizer": "optimizer_options",
    "schedule": "schedule_options", "schema": "schema_overrides",
    "tokenizer": "tokenizer_options", "rates": "rates",
}  # fmt: skip
OPTIONS = {
    **dict.fromkeys(("init", "activation", "widths", "width", "layers", "heads", "dropout", "norm",
                     "residual"), "model"),
    **dict.fromkeys(("loss", "label_smoothing"), "task"),
    **dict.fromkeys(("peak", "end"), "schedule"), **dict.fromkeys(("eps", "betas"), "optimizer"),
    "vocab": "tokenizer",
}  # fmt: skip
"""Options that are often written without their section."""
RUN_FILE = {"config", "origins", "about"}  # the sections of a run's config.yaml
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "min": 60.0, "sec": 1.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(min|sec|[smhd])?\s*")
_LISTS = ("freeze", "augment")  # one word stands for a list of one
_SHOWN = 5  # problems printed at once: an error stays under twelve lines


@dataclass(frozen=True)
class Layer:
    """The values of one source.

    values  canonical key -> value
    where   canonical (dotted) key -> where it was given, for people: "--lr", "train.yaml line 3"
    """

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Resolved:
    """The configuration of a run and, for every value that is not a default, where it is from."""

    config: Config
    origins: dict[str, str]


def layer(name: str, items: Iterable[tuple[str, Any, str]]) -> Layer:
    """Build a layer from (key, value, where) triples; keys may be dotted.

    Raises `ConfigError` with the nearest name for an unknown key, and for a key given twice.
    """
    result = Layer(name)
    for key, value, where in items:
        head, dot, tail = key.partition(".")
        if dot and tail and head in SECTIONS:
            _option(result, head, tail, value, where)
        elif not dot and head in SECTIONS and isinstance(value, dict):
            for option, inner in value.items():
                if option == "name" and head != "schema":
                    _plain(result, head, inner, where)
                else:
                    _option(result, head, str(option), inner, where)
        elif not dot and head in SECTIONS.values() and isinstance(value, dict):
            section = next(s for s, target in SECTIONS.items() if target == head)
            for option, inner in value.items():
                _option(result, section, str(option), inner, where)
        elif not dot and key in SECTIONS.values():
            if value is not None:
                raise ConfigError(
                    f"{key} = {shorten(repr(value))} ({where})",
                    "a mapping of options",
                    f"for instance {key}: {{name: value}}",
                )
        elif not dot and key in Config.model_fields:
            _plain(result, key, value, where)
        else:
            raise _unknown(key, where)
    return result


def layer_from_file(path: Path) -> Layer:
    """Read a YAML file, or the `config.yaml` of a run, as a layer."""
    document = read_yaml(path)
    return _from_document(document.values, document.lines, str(path))


def layer_from_text(text: str, name: str = "text") -> Layer:
    """Read YAML text as a layer (what `layer_from_file` does after reading)."""
    document = parse_document(text, name)
    return _from_document(document.values, document.lines, name)


def layer_from_flags(flags: Mapping[str, str | None], settings: Iterable[str]) -> Layer:
    """Build the layer of a command line: typed `flags` and `--set key=value` texts."""
    items: list[tuple[str, Any, str]] = [
        (key, typed(key, text), f"--{key.replace('_', '-')}")
        for key, text in flags.items()
        if text is not None
    ]
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"--set {shorten(setting)!r} has no '='",
                "--set key=value",
                "for instance --set lr=0.01",
            )
        key = key.strip()
        items.append((key, typed(key, text), f"--set {shorten(key)}"))
    return layer("flags", items)


def layer_from_values(
    values: Mapping[str, Any], where: str = "argument", *, settings: Mapping[str, Any] | None = None
) -> Layer:
    """Build the layer of a Python call.

    values    None means not given; settings: any key, and None is a value like any other
    """
    given = [(k, v) for k, v in values.items() if v is not None]
    given += (settings or {}).items()
    return layer(where, [(key, value, f"{where} {key}") for key, value in given])


def typed(key: str, text: str) -> Any:
    """Return `text` as the value of `key`: as it stands for text keys, else as a YAML value."""
    known = Config.model_fields.get(key)
    if known is not None and (known.annotation is str or str in get_args(known.annotation)):
        return None if key != "normalise" and text in ("null", "none") else text
    if key.startswith("schema."):
        return text
    return parse_value(text)


def seconds(value: float | str) -> float:
    """Return a duration in seconds from a number or from text such as "90", "10m", "1h30m".

    >>> seconds("10m"), seconds("1h30m"), seconds(5)
    (600.0, 5400.0, 5.0)
    """
    if not isinstance(value, str):
        return float(value)
    text = value.strip().lower()
    total, position = 0.0, 0
    while position < len(text):
        match = _DURATION.match(text, position)
        if match is None or (match[2] is None and position):
            break
        total += float(match[1]) * _UNITS[match[2] or ""]
        position = match.end()
    if not text or position < len(text):
        raise ConfigError(
            f"the time {shorten(value)!r} is not a duration",
            "seconds, or a number with s, m, h or d",
            "for instance --time 90, --time 10m or --time 1h30m",
        )
    return total


def resolve(*layers: Layer) -> Resolved:
    """Merge `layers` in rising precedence over the defaults and validate the whole.

    Raises `ConfigError` that names every wrong value, where it was given and what is needed.
    """
    values: dict[str, Any] = {}
    where: dict[str, str] = {}
    for source in layers:
        _merge(values, where, source)
    if values.get("time") is not None and isinstance(values["time"], str):
        values["time"] = seconds(values["time"])
    for key in _LISTS:
        if isinstance(values.get(key), str):
            values[key] = [values[key]]
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where) from None
    except RecursionError as error:
        raise ConfigError("a value nests too deeply", "plain values", "flatten it") from error
    origins = {k: v for k, v in where.items() if _differs(k, config)}
    return Resolved(config, origins)


def to_values(config: Config) -> dict[str, Any]:
    """Return every value of `config` for YAML, defaults and nulls included.

    A run that is resumed takes all of them from its file: neither a recipe below nor the defaults
    of another version can change it.
    """
    return config.model_dump(mode="json")


def _from_document(values: dict[str, Any], lines: dict[str, int], name: str) -> Layer:
    prefix = ""
    if set(values) == RUN_FILE and isinstance(values["config"], dict):
        values, prefix = {k: v for k, v in values["config"].items() if k != "out"}, "config."
    return layer(
        name, [(k, v, f"{name} line {lines.get(prefix + k, 0)}") for k, v in values.items()]
    )


def _plain(result: Layer, key: str, value: Any, where: str) -> None:
    if key in result.values:
        both = f"{key} is given twice, by {result.where[key]} and by {where}"
        raise ConfigError(both, "one value", "remove one of them")
    result.values[key] = value
    result.where[key] = where


def _option(result: Layer, section: str, option: str, value: Any, where: str) -> None:
    options = result.values.setdefault(SECTIONS[section], {})
    if option in options:
        raise ConfigError(
            f"{section}.{shorten(option)} is given twice", "one value", "remove one of them"
        )
    options[option] = value
    result.where[f"{section}.{option}"] = where


def _merge(values: dict[str, Any], where: dict[str, str], source: Layer) -> None:
    given = [b for b in BUDGETS if source.values.get(b) is not None]
    if len(given) > 1:
        places = " and ".join(source.where[b] for b in given)
        raise ConfigError(
            f"{len(given)} budgets are given: {places}",
            "exactly one of epochs, steps and time",
            f"keep one of them, for instance {given[0]}={source.values[given[0]]}",
        )
    if given:
        for budget in BUDGETS:
            values.pop(budget, None)
            where.pop(budget, None)
    for section, target in SECTIONS.items():
        if section == "schema" or section not in source.values:
            continue
        if values.get(section) not in (None, source.values[section]):
            values.pop(target, None)
            for key in [k for k in where if k.startswith(f"{section}.")]:
                del where[key]
    for key, value in source.values.items():
        if key in SECTIONS.values():
            values[key] = {**values.get(key, {}), **value}
        else:
            values[key] = value
    where.update(source.where)


def _differs(key: str, config: Config) -> bool:
    head, dot, _ = key.partition(".")
    if dot:
        return True
    return bool(
        getattr(config, head) != Config.model_fields[head].get_default(call_default_factory=True)
    )


def _unknown(key: str, where: str) -> ConfigError:
    key = shorten(key)
    head, dot, tail = key.partition(".")
    if dot and head in SECTIONS:
        return ConfigError(
            f"'{key}' names no option ({where})", f"{head}.NAME", f"name one: {head}.x"
        )
    if dot:
        close = nearest(head, SECTIONS)
        hint = f"did you mean '{close}.{tail}'?" if close else f"one of {', '.join(SECTIONS)}"
        return ConfigError(
            f"unknown section '{head}' in '{key}' ({where})", "a known section", hint
        )
    names = [*Config.model_fields, *(f"{s}." for s in SECTIONS)]
    close = nearest(key, (*names, *OPTIONS))
    close = f"{OPTIONS[close]}.{close}" if close in OPTIONS else close
    hint = f"did you mean '{close}'?" if close else "`gipi train --help` lists the keys"
    return ConfigError(f"unknown key '{key}' ({where})", "a key of the configuration", hint)


def _explain(error: ValidationError, where: Mapping[str, str]) -> ConfigError:
    """Turn pydantic's errors into one of ours that lists every problem."""
    merged: dict[str, tuple[str, str]] = {}
    for one in error.errors(include_url=False, include_context=False):
        found, needed = _problem(one, where)
        merged.setdefault(str(one["loc"][:1]), (found, needed))
    problems = list(merged.values())
    if len(problems) == 1:
        found, needed = problems[0]
        return ConfigError(found, needed, "correct it and run the command again")
    shown = [f"{found} (needed: {needed})" for found, needed in problems[:_SHOWN]]
    rest = len(problems) - len(shown)
    lines = "\n    ".join([*shown, f"and {rest} more"] if rest else shown)
    return ConfigError(
        f"{len(problems)} values cannot be used:\n    {lines}",
        "values of the right kind and range",
        "correct them and run the command again",
    )


def _problem(one: ErrorDetails, where: Mapping[str, str]) -> tuple[str, str]:
    """Return (found, needed) of one pydantic error."""
    location, message = one["loc"], one["msg"]
    text = shorten(message.removeprefix("Value error, "), 150)
    if not location:
        return text, "values that agree with each other"
    key = str(location[0])
    dotted = ".".join(
        [next((s for s, t in SECTIONS.items() if t == key), key), *map(str, location[1:2])]
    )
    place = where.get(dotted) or where.get(key)
    at = f" ({place})" if place else ""
    shown = shorten(repr(one["input"]))
    meaning = Config.model_fields[key].description or key
    if one["type"] == "value_error":
        return f"{key} = {shown}{at}: {text}", meaning
    return f"{key} = {shown}{at}", f"{_needed(text)}: {meaning}"


def _needed(message: str) -> str:
    """Shorten pydantic's sentence: 'Input should be greater than 0' -> 'greater than 0'."""
    return message.removeprefix("Input should be ").split(", unable")[0]
