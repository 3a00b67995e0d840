"""Message classes by name: imported where a package is installed, else built once from our definitions.

``alpamayo-mono messages`` builds ahead and says where each package comes from.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from collector.common.command_line import command_line
from collector.common.errors import MonoError, install_ros
from collector.ros.families import FAMILIES, Family, asked_or_installed
from collector.ros.message_builder import DEFINITIONS, OTHER_FAMILY, build_messages, messages_folder, package_names
from collector.ros.parameters import MessageParameters
from collector.ros.topics import ALL_TOPICS

MessageClass: TypeAlias = Any  # a class of a message package, or one made for a test


def message_class(name: str) -> MessageClass:
    """The Python class of a message type ``"package/msg/Name"``.

    Raises:
        MonoError: a malformed name, a package that is neither installed nor among our definitions, a type the
            package does not have, or a failed build.
    """
    parts = name.split("/")
    if len(parts) != 3 or parts[1] != "msg" or not all(part.isidentifier() for part in parts):
        raise MonoError(f"message type {name!r}", "package/msg/Name", "write e.g. std_msgs/msg/String")
    package, _, short = parts
    try:
        module = importlib.import_module(f"{package}.msg")
    except ImportError as error:
        definitions = next((root for root in (DEFINITIONS, OTHER_FAMILY) if package in package_names(root)), None)
        if definitions is None:
            found = f"the ROS message package {package} cannot be imported ({error})"
            raise MonoError(found, "a sourced ROS 2 or its wheels", install_ros()) from error
        module = _import_built(package, definitions)
    if not hasattr(module, short):
        expected = f"the definition of {name} as the Challenge uses it"
        do = "update that package, or unsource it so that ours is built"
        raise MonoError(f"{module.__file__} has no message {short}", expected, do)
    return getattr(module, short)


def _import_built(package: str, definitions: Path) -> ModuleType:
    # At the end of the path, and only after an ImportError: a sourced Autoware must never be shadowed.
    folder = str(build_messages(definitions, say=lambda line: print(line, file=sys.stderr, flush=True)))
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(f"{package}.msg")
    except ImportError as error:
        found = f"the built message package {package} in {folder} cannot be imported ({error})"
        raise MonoError(found, "an importable package", "alpamayo-mono messages --rebuild") from error


def definitions_of(family: Family) -> Path:
    """Where the texts of a family's packages lie."""
    return DEFINITIONS if family.name == FAMILIES[0] else OTHER_FAMILY


def installed_packages(family: Family) -> dict[str, Path | None]:
    """Every message package of the interface and its folder, None where it is not installed (ours will serve)."""
    used = {family.topic(topic).type.split("/")[0] for topic in ALL_TOPICS} | set(package_names(definitions_of(family)))
    specs = {name: importlib.util.find_spec(name) for name in sorted(used)}
    return {name: Path(spec.origin).parent if spec and spec.origin else None for name, spec in specs.items()}


@dataclass(frozen=True)
class MessagesConfig(MessageParameters):
    """Say where the ROS message packages of the Challenge's interface come from, and build those that are missing.

    Building needs gcc, g++ and Python's headers, and takes 10 to 30 s, once per Python and ROS.
    """

    rebuild: bool = False  # build again even if the cache has them.


def main(argv: Sequence[str] | None = None) -> int:
    """Verb ``messages``: build the message packages ahead and list where each comes from."""
    config = command_line(MessagesConfig, argv, "alpamayo-mono messages")
    start_s = time.monotonic()
    family = asked_or_installed(config.messages)
    definitions = definitions_of(family)
    installed = installed_packages(family)
    absent = [name for name, place in installed.items() if place is None]
    if config.rebuild or any(name in package_names(definitions) for name in absent):
        build_messages(definitions, rebuild=config.rebuild, say=lambda line: print(line, flush=True))
    for topic in ALL_TOPICS:
        message_class(family.topic(topic).type)
    width = max(map(len, installed))
    for name, place in installed.items():
        # tf2_msgs is in one set only, and belongs to both families.
        root = next(root for root in (definitions, DEFINITIONS) if place or name in package_names(root))
        where = f"installed   {place}" if place else f"built by us {messages_folder(root) / name}"
        print(f"{name:<{width}}  {where}")
    print(f"all {len(ALL_TOPICS)} topics have their message type ({time.monotonic() - start_s:.1f} s)")
    return 0
