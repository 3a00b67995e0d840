"""The doctor on the middleware: what is set, what Cyclone DDS needs of the kernel, and the cure for lost frames."""

from __future__ import annotations

from collector.doctor.facts import MachineFacts, RosFacts
from collector.doctor.rows import Row

# The competition's Cyclone settings ask for this much.
_RECEIVE_BUFFER_BYTES = 10 * 10**6


def transport_cure(ros: RosFacts) -> str:
    """What to do about frames that were sent and did not arrive."""
    if "cyclone" in ros.rmw:
        return (
            "tune the network: ./setup.bash network tune of the competition's repository "
            "(net.core.rmem_max=2147483647, multicast on lo), and a socket receive buffer of 10 MB in the file that "
            "CYCLONEDDS_URI names"
        )
    if "fastrtps" in ros.rmw:
        return (
            "on Fast DDS one lost packet loses the frame: start the camera's publisher with "
            + (ros.profile or "a shared-memory transport profile (FASTDDS_DEFAULT_PROFILES_FILE)")
            + " (alpamayo-mono simulate does so by itself)"
        )
    return f"give {ros.rmw} larger socket buffers or shared memory, or use a smaller image"


def middleware_row(ros: RosFacts, machine: MachineFacts) -> Row:
    """RMW and domain in use; a warning where Cyclone DDS will lose large messages or not find anybody."""
    found = f"{ros.rmw}, ROS domain {ros.domain}" + (f", {ros.discovery}" if ros.discovery else "")
    if "cyclone" in ros.rmw:
        wrong = []
        if machine.rmem_max is not None and machine.rmem_max < _RECEIVE_BUFFER_BYTES:
            wrong.append(f"net.core.rmem_max is {machine.rmem_max}, too little for camera frames")
        if machine.lo_multicast is False:
            wrong.append("lo carries no multicast")
        if wrong:
            return Row(
                "middleware",
                "warning",
                f"{found}; {'; '.join(wrong)}",
                "sudo sysctl -w net.core.rmem_max=2147483647; sudo ip link set lo multicast on (or ./setup.bash "
                "network tune of the competition's repository)",
            )
    return Row("middleware", "ok", found)
