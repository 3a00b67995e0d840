"""JSON and YAML from elsewhere, read with a limit on size, depth and aliases: a few lines can stand for gigabytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from collector.common.errors import MonoError
from collector.common.files import read_regular

_JSON_BYTES = 32 << 20
# What PyYAML reads in a second or two, and what a file may stand for once its aliases are written out.
_YAML_BYTES, _YAML_NODES = 256 << 10, 20_000
_DEPTH = 64


def read_json(path: Path, do: str) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        MonoError: the file is no JSON, too large or too deep, or holds something else.
        FileNotFoundError: there is none.
    """
    try:
        content = json.loads(read_regular(path, _JSON_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise MonoError(f"{path} is not JSON ({error})", "a JSON object", do) from error
    except RecursionError as error:
        raise _too_deep(path, do) from error
    if not isinstance(content, dict):
        raise MonoError(f"{path} holds a {type(content).__name__}", "a JSON object", do)
    level: list[Any] = [content]
    for _ in range(_DEPTH):
        level = [
            item
            for each in level
            for item in (each.values() if isinstance(each, dict) else each)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return content
    raise _too_deep(path, do)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """A YAML mapping (MonoError: absent, not YAML, too large, too deep, too many aliases, or not a mapping)."""
    do = "check the path and the text"
    try:
        text = read_regular(Path(path), _YAML_BYTES).decode("utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH:
                raise _too_deep(path, do)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        nodes = 0 if root is None else _written_out(root, {})
        if not nodes <= _YAML_NODES:
            found = f"{path} holds more than {_YAML_NODES} values, aliases written out"
            raise MonoError(found, "a file of settings", "write them without aliases (&name, *name)")
        values = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        # PyYAML draws the place over several lines.
        why = " ".join(str(error).split())
        raise MonoError(f"{path} cannot be read: {why}", "a YAML file", do) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise MonoError(f"{path} holds a {type(values).__name__}", "a mapping of settings", "write `key: value` lines")
    return values


def _written_out(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for; infinitely many where it holds itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        inner = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + (sum(_written_out(each, known) for each in inner) if isinstance(inner, list) else 0)
    return known[id(node)]


def _too_deep(path: Path | str, do: str) -> MonoError:
    return MonoError(f"{path} is nested more than {_DEPTH} levels deep", "settings", do)
