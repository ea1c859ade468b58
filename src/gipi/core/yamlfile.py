"""YAML as people mean it: the core schema of YAML 1.2, with the line of every key.

PyYAML follows YAML 1.1, in which `1e-3` is a string, `on` is true, `010` is eight and `10:30` is a
number. Here scalars are null, true/false, integers, floats or text, and nothing else; a key that is
given twice is an error, and each key remembers its line for later messages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from gipi.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_INT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None, "true": True, "True": True,
    "TRUE": True, "false": False, "False": False, "FALSE": False,
    ".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan"),
}  # fmt: skip
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 100  # nested lists and mappings; nobody writes a tenth of it
_LONGEST_INT = 4000  # digits; Python refuses to convert longer ones


@dataclass(frozen=True)
class Document:
    """A mapping read from YAML: its values and the line of each top-level or dotted key."""

    values: dict[str, Any]
    lines: dict[str, int]


def scalar(text: str) -> Any:
    """Return the value of a plain YAML 1.2 scalar.

    >>> scalar("1e-3"), scalar("on"), scalar("true"), scalar("7"), scalar("null")
    (0.001, 'on', True, 7, None)
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < _LONGEST_INT:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def parse_value(text: str) -> Any:
    """Return what `text` after `key=` means: a scalar, or a list or mapping in YAML's flow form.

    >>> parse_value("[256, 128]"), parse_value("{a: 1e-3}"), parse_value("a: b")
    ([256, 128], {'a': 0.001}, 'a: b')
    """
    stripped = text.strip()
    if stripped[:1] not in ("[", "{", '"', "'"):
        return scalar(stripped)
    try:
        node = _compose(stripped)
        return _value(node, set(), "", {})
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(
            f"the value {shorten(text)} is not valid YAML",
            "a number, a word, a list such as [256, 128] or a mapping such as {a: 1}",
            "check brackets and quotes; quote the whole argument for the shell",
        ) from error


def read_yaml(path: Path) -> Document:
    """Read a YAML file that holds one mapping.

    Raises `ConfigError` with the line for anything that is not one.
    """
    needed, do = "a text file of `key: value` lines", "give the path of a YAML file to --config"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"the file {path} does not exist", needed, do) from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder", needed, do) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text", needed, "save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", needed, do) from error
    return parse_document(text, str(path))


def parse_document(text: str, name: str) -> Document:
    """Parse `text`, called `name` in messages, into a `Document`."""
    needed = "YAML: one `key: value` a line, indented with spaces"
    try:
        node = _compose(text)
        if node is None:
            return Document({}, {})
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(
                f"{name} line {node.start_mark.line + 1} is not a `key: value`",
                "a mapping of configuration keys",
                "write for instance `lr: 0.001`",
            )
        lines: dict[str, int] = {}
        return Document(_value(node, set(), "", lines), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{name}{at}: {error.problem}", needed, "correct this line") from error
    except yaml.YAMLError as error:
        reason = str(getattr(error, "reason", error)).splitlines()[0]
        raise ConfigError(f"{name} is not text: {reason}", needed, "correct the file") from error
    except RecursionError as error:
        raise ConfigError(f"{name} nests too deeply", needed, "flatten the file") from error
    except ValueError as error:
        raise ConfigError(f"{name} cannot be read: {error}", needed, "correct it") from error


def _compose(text: str) -> Any:
    """Return the root node; `RecursionError` where the C composer would overrun its stack.

    Events come one by one, so counting the open collections needs no stack of its own.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise RecursionError
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return yaml.compose(text, Loader=_LOADER)


def _value(node: Any, seen: set[int], prefix: str, lines: dict[str, int]) -> Any:
    """Turn a YAML node into Python values and note the line of each (dotted) key."""
    mark = node.start_mark
    if id(node) in seen:
        raise yaml.MarkedYAMLError(
            problem="anchors and aliases are not read here; write the value out", problem_mark=mark
        )
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else scalar(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, seen, f"{prefix}.", lines) for item in node.value]
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(
                problem="a key must be a word", problem_mark=key_node.start_mark
            )
        key = key_node.value
        if key in result:
            raise yaml.MarkedYAMLError(
                problem=f"the key '{shorten(key)}' is given twice", problem_mark=key_node.start_mark
            )
        name = f"{prefix}.{key}" if prefix else key
        lines.setdefault(name, key_node.start_mark.line + 1)
        result[key] = _value(value_node, seen, name, lines)
    return result


class _Dumper(yaml.SafeDumper):
    """Writes text in quotes wherever `scalar` would take it for something else."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None if scalar(text) == text else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump_yaml(values: Any) -> str:
    """Return `values` (mappings, lists, scalars) as YAML that `parse_document` reads back."""
    text: str = yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None,
        width=100,
    )  # fmt: skip
    return text


def shorten(text: str, limit: int = 60) -> str:
    r"""Return `text` on one line of at most `limit` characters.

    >>> shorten("a\nb"), shorten("abcdefgh", 6)
    ('a b', 'abc...')
    """
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
