"""The policy process: loads a model once, then answers observations with plans until its input ends.

Started by :class:`closed_loop.ros.policy_process.PolicyProcess` as a module (``python -m``), with any Python that
has torch. Nothing of ROS is imported here. The first message in names the policy and its options, the first
message out says that it is ready; from then on one message in is one message out.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from closed_loop.ros.protocol import pack_plan, read_message, unpack_observation, write_message
from collector.common.cpu import share_cores
from collector.common.errors import MonoError
from finetune.policy import Policy


def build_policy(target: str, options: dict[str, Any]) -> Policy:
    """Make a policy from ``"module:Class"`` and its keyword arguments.

    Raises:
        MonoError: there is no such class, it refuses the options, or it cannot plan.
    """
    module_name, _, class_name = target.partition(":")
    try:
        factory = getattr(_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        found = f"the policy {target!r} cannot be imported in {sys.executable} ({error})"
        do = "install alpamayo_mono with its extra [gpu] there, or name another policy_python"
        raise MonoError(found, "'module:Class'", do) from error
    policy: Policy = factory(**options)
    if not callable(getattr(policy, "plan", None)):
        raise MonoError(f"{target!r} has no method plan", "a class like finetune.policy.Policy", "add plan()")
    return policy


def _module(name: str) -> ModuleType:
    """A module of what is installed, else of the working folder, where a team keeps its own driver."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
    sys.path.append(str(Path.cwd()))
    return importlib.import_module(name)


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answer requests until ``source`` ends. A request that fails is answered with its error; the process lives on."""
    first = read_message(source)
    if first is None:
        return
    start_s = time.perf_counter()
    try:
        policy = build_policy(first[0]["policy"], first[0]["options"])
        # What is made for the first plan is made before anybody waits for it.
        getattr(policy, "warm_up", lambda: None)()
    except Exception as error:  # noqa: BLE001 -- whatever stops the model from loading belongs on the driver's screen
        if not isinstance(error, MonoError):
            traceback.print_exc()
        write_message(sink, {"failed": str(error) or type(error).__name__})
        return
    write_message(sink, {"ready": True, "load_s": time.perf_counter() - start_s})
    while (request := read_message(source)) is not None:
        start_s = time.perf_counter()
        try:
            header, arrays = pack_plan(policy.plan(unpack_observation(*request)))
            header["compute_ms"] = (time.perf_counter() - start_s) * 1e3
        except Exception as error:  # noqa: BLE001 -- one bad frame must not end the drive; the kart brakes meanwhile
            if not isinstance(error, MonoError):
                traceback.print_exc()
            header, arrays = {"error": str(error) or type(error).__name__}, {}
        header["stamp_ns"] = request[0]["stamp_ns"]
        write_message(sink, header, arrays)


def main() -> None:
    """Serve the process that started this one."""
    share_cores()
    # Libraries print: keep the pipe for messages, and send everything printed to stderr.
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, sink)
    except (OSError, MonoError) as error:
        print(f"policy process: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
