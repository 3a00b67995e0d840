"""What a server says of itself at the handshake, and whether a node may drive by it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from closed_loop.serving.messages import Message
from closed_loop.serving.settings import PolicySpec
from collector.common.errors import MonoError, shown
from collector.common.model_files import find_model
from collector.common.run_folder import hash_path
from finetune.policy import CHALLENGE_FRAME_PX, FUTURE_STEPS, HISTORY_STEPS, STEP_S, cameras_of, frames_of

# Of the messages: a server of another first number is not driven by, the second one only adds.
PROTOCOL = "1.1"
# What a drive began with and must go on with.
_SAME = ("policy", "model", "adapter", "settings")


def metadata_of(spec: PolicySpec) -> Message:
    """What a server with this policy says of itself; the checksums are those of the run folders."""
    options = dict(spec.options)
    cameras = str(options["cameras"]) if "cameras" in options else None
    folders = {"model": options.pop("model_folder", "") or "", "adapter": options.pop("adapter", None) or ""}
    checksums = {name: hash_path(find_model(Path(folder))) if folder else None for name, folder in folders.items()}
    try:
        version = importlib.metadata.version("alpamayo_mono")
    except importlib.metadata.PackageNotFoundError:
        version = "a source tree"
    named = {name: {"name": str(folder), "sha256": checksums[name]} for name, folder in folders.items() if folder}
    return {
        "protocol": PROTOCOL,
        "server": "alpamayo_mono",
        "version": version,
        "policy": spec.policy,
        "model": named.get("model"),
        "adapter": named.get("adapter"),
        "settings": options,
        "cameras": None if cameras is None else {name: frames_of(cameras) for name in cameras_of(cameras)},
        "image_px": list(CHALLENGE_FRAME_PX),  # what is warmed up for; others are taken too
        "history_steps": HISTORY_STEPS,
        "waypoints": FUTURE_STEPS,
        "step_s": STEP_S,
    }


def check_metadata(said: object, mode: str, before: Mapping[str, Any] | None = None) -> Message:
    """What a server said of itself, if a node whose ``cameras`` are ``mode`` may drive by it.

    ``before`` is what the server said when the drive began.

    Raises:
        MonoError: no such server, another protocol, plans of another length, other cameras, or another model or adapter
            than before.
    """
    do = "install the same version of alpamayo_mono on both ends"
    if not isinstance(said, dict) or not isinstance(said.get("protocol"), str):
        found = "the policy server says nothing of its protocol: it is none of alpamayo_mono"
        raise MonoError(found, f"alpamayo-mono serve, protocol {PROTOCOL}", "name another policy_server")
    theirs, ours = said["protocol"].partition(".")[0], PROTOCOL.partition(".")[0]
    if theirs != ours:
        found = f"the policy server {_text(said.get('version'))} speaks protocol {_text(said['protocol'])}"
        raise MonoError(found, f"protocol {ours}.x, as this node speaks", do)
    if (said.get("waypoints"), said.get("step_s")) != (FUTURE_STEPS, STEP_S):
        found = f"the policy server plans {_text(said.get('waypoints'))} waypoints of {_text(said.get('step_s'))} s"
        raise MonoError(found, f"{FUTURE_STEPS} of {STEP_S:g} s", do)
    wanted, sent = said.get("cameras"), {name: frames_of(mode) for name in cameras_of(mode)}
    if wanted is not None and wanted != sent:
        found = f"the policy server looks at {_frames(wanted)}, and this node sends {_frames(sent)}"
        raise MonoError(found, "the same", "give both the same cameras:=")
    for name in _SAME if before is not None else ():
        if before is not None and said.get(name) != before.get(name):
            now, then = _differing(said.get(name), before.get(name))
            found = f"the policy server came back as another, its {name} now {now}"
            raise MonoError(found, f"{then}, as when the drive began", "begin a new drive")
    return said


def says_instructions(said: Mapping[str, Any] | None) -> bool:
    """Whether a server has said that its policy heeds instructions; one before protocol 1.1 says nothing of it."""
    return said is not None and said.get("instructions") is True


def description(said: Mapping[str, Any]) -> str:
    """A server in a line."""
    own = said.get("model") is None
    parts = [f"policy {_text(said.get('policy'))}" if own else f"model {_text(said.get('model'))}"]
    parts += [f"adapter {_text(said.get('adapter'))}" if said.get("adapter") else "no adapter"] * (not own)
    return f"alpamayo_mono {_text(said.get('version'))}, protocol {_text(said.get('protocol'))}, " + ", ".join(parts)


def _differing(now: object, then: object) -> tuple[str, str]:
    """Two unequal values as texts; of settings those that differ."""
    if isinstance(now, dict) and isinstance(then, dict) and "sha256" not in then:
        names = [name for name in {**then, **now} if now.get(name) != then.get(name)]
        return tuple(", ".join(f"{_text(name)} {_text(each.get(name))}" for name in names) for each in (now, then))  # type: ignore[return-value]
    return _text(now), _text(then)


def _frames(cameras: object) -> str:
    if not isinstance(cameras, dict):
        return _text(cameras)
    return ", ".join(f"{_text(count)} of {_text(name)}" for name, count in cameras.items()) or "no camera"


def _text(value: object) -> str:
    if isinstance(value, dict) and value.keys() == {"name", "sha256"}:
        return f"{_text(value['name'])} (sha256 {str(value['sha256'])[:12]})"
    text = value if isinstance(value, str) else str(value)
    return shown(text[:200])
