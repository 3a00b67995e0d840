"""Which policy plans and where: the settings that verb ``serve`` and the driving node share.

Standard library and numpy only: launch files and nodes read it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from collector.common.arguments import Arguments, argument, same_as
from collector.common.errors import MonoError
from collector.common.files import read_regular
from collector.common.model_files import find_model
from finetune import TINY_BASE
from finetune.policy import FUTURE_STEPS, STEP_S, Engine, FrontMode, Pack, PolicySettings

DEFAULT_POLICY = "finetune.alpamayo_policy:AlpamayoPolicy"
TOKEN_VARIABLE = "ALPAMAYO_MONO_TOKEN"  # noqa: S105 - the name, not the token
_MOST_TOKEN_BYTES = 4096
_MODULE_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,3})?")
# Setting -> the file that makes a folder one of its kind, and what such a folder is.
_FOLDERS = {
    "model": ("config.json", "a model folder, or owner/name"),
    "adapter": ("adapter_config.json", "what finetune wrote"),
}
if TYPE_CHECKING:
    FrameCoding: TypeAlias = str
else:
    FrameCoding = Literal["raw", "jpeg"]


@dataclass(frozen=True)
class PolicySpec:
    """Which policy to load, and with which Python where that is a process of its own."""

    policy: str = DEFAULT_POLICY  # `"module:Class"` of a `finetune.policy.Policy`
    options: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of that class (JSON values)
    python: str = ""  # interpreter of the child, empty for the running one


@dataclass(frozen=True)
class PolicyParameters(Arguments):
    """What plans, and how."""

    model: str = argument(
        "", "Alpamayo model folder, or an id of the Hugging Face hub; empty takes the tiny base shipped"
    )
    adapter: str = argument("", "PEFT adapter folder (what finetune wrote); empty drives the bare model")
    cameras: FrontMode = argument(
        PolicySettings.cameras,
        "what the model is shown: mono (the front frame), mono-4frames (its last four), mono-padded (the other cameras "
        "filled with black)",
    )
    noise_temperature: float = same_as(PolicySettings, "noise_temperature")
    policy: str = argument(
        DEFAULT_POLICY, "who drives, as module:Class with a plan() method; a team's own driver goes here"
    )
    flow_steps: int = same_as(PolicySettings, "flow_steps")
    reasoning: bool = argument(
        PolicySettings.reasoning, "false skips the reasoning and answers with the trajectory alone"
    )
    engine: Engine = argument(
        PolicySettings.engine,
        "fast reads along what the reasoning will probably say; eager is the reference, word by word",
    )
    samples: int = same_as(PolicySettings, "samples")
    reasoning_hz: float = same_as(PolicySettings, "reasoning_hz")
    quantised: Pack = argument(
        PolicySettings.quantised,
        "nf4 packs the language model in four bits, for cards of 12 to 16 GB (needs the extra [gpu])",
    )
    device: str = argument(PolicySettings.device, "torch device of the model: cpu, cuda, cuda:1")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _MODULE_CLASS.fullmatch(self.policy):
            raise MonoError(f"policy:={self.policy}", "module:Class", "name the class of the policy that drives")
        if self.policy == DEFAULT_POLICY and not _DEVICE.fullmatch(self.device):
            raise MonoError(f"device:={self.device}", "cpu, cuda, or one of several as cuda:1", "correct the device")

    def check_folders(self) -> None:
        """Refuse (MonoError) a model or an adapter that is none, before any of it is read.

        Two words with a slash between them may be an id of the Hugging Face hub.
        """
        for name, (file, expected) in _FOLDERS.items() if self.policy == DEFAULT_POLICY else ():
            text = getattr(self, name)
            path = find_model(Path(text))
            if not text or (path / file).is_file():
                continue
            if path.is_dir():
                raise MonoError(f"{name}:={text} holds no {file}", expected, "correct the path")
            if path.is_absolute() or len(path.parts) != 2 or path.exists():
                found = f"{name}:={text} is {'no folder' if path.exists() else 'not there'}"
                raise MonoError(found, expected, "correct the path")

    def spec(self, python: str = "") -> PolicySpec:
        """The policy these settings name; one of a team's own is given what every policy has."""
        own = self.policy != DEFAULT_POLICY
        names = ["cameras", "flow_steps", "noise_temperature", "reasoning", "device"]
        names += [] if own else ["engine", "samples", "reasoning_hz", "quantised"]
        model = self.model or ("" if own else str(TINY_BASE))
        options = {"model_folder": model, "adapter": self.adapter or None}
        return PolicySpec(self.policy, {**options, **{name: getattr(self, name) for name in names}}, python)

    def given(self) -> list[str]:
        """Names of the settings that differ from their defaults, but for the cameras."""
        return [
            each.name
            for each in fields(PolicyParameters)
            if each.name != "cameras" and getattr(self, each.name) != each.default
        ]


@dataclass(frozen=True)
class PolicyPlace(PolicyParameters):
    """Where the policy of a driving node runs, and how its frames get there."""

    policy_python: str = argument(
        "", "Python interpreter of the policy process, e.g. of a newer environment with torch; empty takes this one"
    )
    policy_server: str = argument(
        "", "host:port of alpamayo-mono serve, which then decides what plans; empty starts a policy process here"
    )
    policy_token_file: str = argument(
        "", f"text file with the token of policy_server; empty takes the environment's {TOKEN_VARIABLE}, if any"
    )
    policy_timeout_s: float = argument(
        FUTURE_STEPS * STEP_S,
        "wall seconds an answer of the policy may take before it is given up and the connection made anew; as long as "
        "a plan reaches",
        0.1,
        60.0,
    )
    frames: FrameCoding = argument(
        "raw", "how frames travel to the policy: raw, exact, or jpeg, a tenth as large, for a network"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.policy_server:
            return
        address(self.policy_server)
        if others := [*self.given(), *(["policy_python"] if self.policy_python else [])]:
            found = f"{', '.join(others)} together with policy_server:={self.policy_server}"
            do = f"give {others[0]} to alpamayo-mono serve, or leave policy_server out"
            raise MonoError(found, "a server that was told itself what plans", do)


def address(text: str) -> tuple[str, int]:
    """Host and port of a text ``host:port``; an IPv6 address stands in brackets.

    Raises:
        MonoError: no host, or no port from 1 to 65535.
    """
    host, _, port = text.removeprefix("ws://").rstrip("/").rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    ports = port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 1 << 16
    sound = bare and not any(letter.isspace() or letter in "/@" for letter in bare)
    if not sound or not ports or (":" in bare and host == bare):
        raise MonoError(f"policy_server:={text!r}", "host:port, as gpu-box:8000", "name where alpamayo-mono serve runs")
    return bare, int(port)


def read_token(file: str, given: str = "") -> str:
    """The token of a server: as given, else the first line of a file, else of the environment; empty for none.

    Raises:
        MonoError: a file that cannot be read, or a token that is empty or cannot stand in a header.
    """
    if file:
        try:
            lines = read_regular(Path(file), _MOST_TOKEN_BYTES).decode().splitlines()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "no text"
            raise MonoError(f"the token file {file}: {why}", "a text file with the token", "write it") from error
        token = lines[0].strip() if lines else ""
    else:
        token = given or os.environ.get(TOKEN_VARIABLE, "").strip()
    if (file and not token) or not token.isascii() or not token.isprintable() or " " in token:
        raise MonoError("a token that is empty or holds spaces or unusual characters", "printable ASCII", "change it")
    return token
