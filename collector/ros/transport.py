"""Environment of ROS processes: a transport large enough for images, and clean variables for children.

FastDDS, the middleware of the PyPI wheels, loses nearly every best-effort image on its default transport: half a
megabyte becomes many UDP packets, one lost packet loses the frame. With a larger shared-memory segment on the
publisher's side every frame arrives, also at subscribers with default settings.

Where the middleware does not start at all, what it says names no cure: :func:`middleware_error` does.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from collector.common.errors import MonoError
from collector.common.files import write_atomically
from collector.ros.message_builder import cache_root

# The same setting under its name since Kilted (FastDDS 3) and before.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
_KILTED_RCLPY = 9
# What the wheels' start-up hook leaves behind: it re-executes Python once with a longer library path.
WHEELS_GUARD = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"

_SEGMENT_BYTES = 64 * 2**20  # ten raw 1920x1080 frames, or ninety of 640x360
_MESSAGE_BYTES = 16 * 2**20
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only its size is asked for

# The competition's settings of Cyclone DDS ask for a socket's receive buffer of 10 MB, and fail where the kernel gives
# less, as it does until told otherwise.
RECEIVE_BUFFER_BYTES = 10 * 10**6
TUNE_NETWORK = (
    "sudo sysctl -w net.core.rmem_max=2147483647; sudo ip link set lo multicast on (or ./setup.bash network tune of "
    "the competition's repository)"
)
_RMEM_MAX = Path("/proc/sys/net/core/rmem_max")
_LO_FLAGS = Path("/sys/class/net/lo/flags")
_IFF_MULTICAST = 0x1000
# Its ports are the last that exist; beyond it a middleware ends the process. (From 102 on they lie among those that
# Linux gives to anybody, and a domain works or not by chance.)
LAST_DOMAIN = 232

_PROFILE = Path(__file__).with_name("fastdds_images.xml")


def prepare_publisher() -> Path | None:
    """Make this process publish images through shared memory; call it before ``rclpy.init()``. Returns the profile.

    Does nothing (None) where the middleware is not FastDDS (the competition runs Cyclone DDS) or where the user has set
    a profile already. MonoError where the profile cannot be written to the cache.
    """
    middleware = os.environ.get("RMW_IMPLEMENTATION", "")
    if middleware and not middleware.startswith("rmw_fastrtps"):
        return None
    if any(variable in os.environ for variable in PROFILE_VARIABLES):
        return None
    segment_bytes = _segment_bytes()
    # The size in the name: a container and its host may share the cache but not /dev/shm.
    path = cache_root() / f"fastdds_images_{segment_bytes // 2**20}mb.xml"
    sizes = {"segment_bytes": segment_bytes, "message_bytes": min(_MESSAGE_BYTES, segment_bytes)}
    _write(path, _PROFILE.read_text(encoding="utf-8").format(**sizes))
    os.environ[_profile_variable()] = str(path)
    return path


def network_settings() -> tuple[int | None, bool | None]:
    """The largest receive buffer a socket may ask for, bytes, and whether lo carries multicast; None where unknown."""
    numbers: list[int | None] = []
    for path, base in ((_RMEM_MAX, 10), (_LO_FLAGS, 16)):
        try:
            numbers.append(int(path.read_text(), base))
        except (OSError, ValueError):
            numbers.append(None)
    rmem_max, flags = numbers
    return rmem_max, None if flags is None else bool(flags & _IFF_MULTICAST)


def check_domain() -> None:
    """Refuse (MonoError) a ROS_DOMAIN_ID that no middleware can join; some end the process over it, without a word."""
    said = os.environ.get("ROS_DOMAIN_ID", "")
    if said and not (said.isascii() and said.isdecimal() and int(said) <= LAST_DOMAIN):
        raise MonoError(f"ROS_DOMAIN_ID={said}", "a number from 0 to 101", "set it to the simulator's, or unset it")


def middleware_error(error: Exception) -> MonoError:
    """The sentence for a ROS that does not start, from what its core raised."""
    said = str(error).partition(", at /")[0].splitlines()[0] if str(error) else type(error).__name__
    middleware = os.environ.get("RMW_IMPLEMENTATION", "")
    if "argument" in str(error) or "parse" in said.lower() or "ROSArgs" in type(error).__name__:
        return MonoError(f"ROS does not take these words: {said}", "-p name:=value", "correct what follows --ros-args")
    rmem_max, has_multicast = network_settings()
    if "cyclone" in middleware and rmem_max is not None and rmem_max < RECEIVE_BUFFER_BYTES:
        found = f"Cyclone DDS does not start ({said}), and net.core.rmem_max is {rmem_max}"
        return MonoError(found, "a receive buffer of the 10 MB that CYCLONEDDS_URI asks for", TUNE_NETWORK)
    if "cyclone" in middleware:
        found = f"Cyclone DDS does not start: {said}"
        settings = os.environ.get("CYCLONEDDS_URI", "") or "unset"
        do = f"see that CYCLONEDDS_URI ({settings}) names a file whose network interface is there"
        return MonoError(
            found, "a middleware that joins its domain", f"{TUNE_NETWORK}; {do}" if not has_multicast else do
        )
    do = "see ROS_DOMAIN_ID (0 to 101), RMW_IMPLEMENTATION and what was printed above; alpamayo-mono doctor says more"
    return MonoError(f"ROS does not start: {said}", "a middleware that joins its domain", do)


def without_our_libraries(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for starting a Python of another virtual environment.

    The wheels mark a process as prepared and prepend their libraries to LD_LIBRARY_PATH. A child inherits both, so
    the wheels of another environment would skip their own preparation and load our libraries.
    """
    child = dict(os.environ if environment is None else environment)
    if child.pop(WHEELS_GUARD, None) is None:
        return child  # not the wheels: a sourced ROS needs its library path
    entries = child.pop("LD_LIBRARY_PATH", "").split(os.pathsep)
    kept = [entry for entry in entries if entry and not Path(entry).is_relative_to(sys.prefix)]
    if kept:
        child["LD_LIBRARY_PATH"] = os.pathsep.join(kept)
    return child


def _profile_variable() -> str:
    # Kilted warns at the old name, Jazzy and Humble do not know the new one.
    for distribution in ("ros-rclpy", "rclpy"):
        try:
            kilted = int(importlib.metadata.version(distribution).split(".")[0]) >= _KILTED_RCLPY
        except importlib.metadata.PackageNotFoundError:
            continue
        return PROFILE_VARIABLES[0] if kilted else PROFILE_VARIABLES[1]
    return PROFILE_VARIABLES[0]


def _segment_bytes() -> int:
    # Containers often have 64 MB of shared memory in all; a segment that outgrows it ends the process by SIGBUS.
    try:
        total = shutil.disk_usage(_SHARED_MEMORY).total
    except OSError:
        total = 4 * _SEGMENT_BYTES
    return max(8 * 2**20, min(_SEGMENT_BYTES, total // 4))


def _write(path: Path, text: str) -> None:
    """Write a file in one step, since other publishers may be reading it."""
    try:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        found = f"the transport profile {path} cannot be written ({error.strerror})"
        raise MonoError(found, "a folder of yours", "set XDG_CACHE_HOME to a folder you may write to") from error
