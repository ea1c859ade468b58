"""From the options that a user typed to the frozen config of a model family."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from gipi.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

ConfigT = TypeVar("ConfigT")


def read_options(model: str, config: type[ConfigT], options: Mapping[str, Any]) -> ConfigT:
    """Return `config` built from `options`, each checked against its declared type.

    A list or a text such as "256,128" becomes a tuple. Raises `ConfigError` that names the option
    and proposes the nearest known one.
    """
    known = [f.name for f in fields(config)]  # type: ignore[arg-type]
    for key in options:
        if key not in known:
            raise ConfigError(
                f"the model '{model}' has no option '{key}'",
                f"one of: {', '.join(known)}" if known else f"no options: '{model}' has none",
                did_you_mean(key, known) if known else "leave it out",
            )
    types = {f.name: str(f.type) for f in fields(config)}  # type: ignore[arg-type]
    values = {
        k: [part.strip() for part in v.split(",") if part.strip()]
        if isinstance(v, str) and types[k].startswith("tuple") else v
        for k, v in options.items()
    }  # fmt: skip
    try:
        return TypeAdapter(config).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "options"
        needed = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
        raise ConfigError(
            f"model.{key}={options.get(key)!r} is no value for the model '{model}'",
            needed,
            f"set model.{key} to such a value, or leave it out",
        ) from error
