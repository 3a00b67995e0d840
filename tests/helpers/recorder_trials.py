"""Killing a real recording process at a random moment, and counting what its bag has lost."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader

from collector.bags.definitions import definition_of
from collector.bags.reader import typestore
from collector.bags.recover import recover_bag
from collector.recording.recorder import stamp_in
from collector.ros.topics import CAMERA_IMAGE, CAMERA_JPEG
from tests.helpers.ros_processes import Domain, until

SECOND = 1_000_000_000
# A machine that made the publisher itself this late proves nothing about a recorder.
TOO_LATE_MS = 150.0


@dataclass(frozen=True)
class KillTrial:
    """One kill.

    Attributes:
        messages: readable in the recovered bag.
        sent: published between the first recorded message and one second before the kill, stamped topics only.
        lost: of these, not in the bag.
        newest_s: how old the newest recorded message was at the kill, the worst topic's.
        late_ms: how late the publisher ran at worst in the two seconds before the kill.
    """

    messages: int
    sent: int
    lost: int
    newest_s: float
    late_ms: float


def sent_stamps(log: Path) -> dict[str, list[tuple[int, float]]]:
    """(stamp_ns, late_ms) per topic as the bag names it, from a camera_publisher's log."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in log.read_text(encoding="ascii").splitlines(keepends=True):
        if line.endswith("\n"):
            name, stamp_ns, late_ms = line.split()
            name = CAMERA_JPEG.name if name == CAMERA_IMAGE.name else name
            found[name].append((int(stamp_ns), float(late_ms)))
    return found


def stored_stamps(bag: Path) -> dict[str, list[int]]:
    """Header stamps per topic of a bag, topics without any left out."""
    found: dict[str, list[int]] = defaultdict(list)
    with AnyReader([bag], default_typestore=typestore()) as reader:
        for connection, _, data in reader.messages():
            if definition_of(connection.msgtype).begins_with_stamp:
                found[connection.topic].append(stamp_in(data) or 0)
    return found


def kill_trial(domain: Domain, bag: Path, log: Path, after_s: float) -> KillTrial:
    """Record into ``bag`` from a publisher that is running, kill the recorder, recover the bag, compare.

    Args:
        domain: where the publisher runs.
        bag: to record to.
        log: the publisher's.
        after_s: from the first bytes on disk to the kill.
    """
    recorder = domain.start("collector.recording.node", out=bag, max_loss=1.0, split_minutes=0.05)
    # The first chunk, behind the bare header.
    until(lambda: any(path.stat().st_size > 1000 for path in bag.glob("*.mcap")), 40.0, lambda: recorder.output)
    time.sleep(after_s)
    recorder.process.send_signal(signal.SIGKILL)
    killed_ns = time.time_ns()
    recorder.wait()
    recover_bag(bag)
    stored, sent = stored_stamps(bag), sent_stamps(log)
    expected = missing = 0
    newest_s = 0.0
    for name, stamps in stored.items():
        due = {stamp for stamp, _ in sent[name] if stamps[0] <= stamp < killed_ns - SECOND}
        expected += len(due)
        missing += len(due - set(stamps))
        newest_s = max(newest_s, (killed_ns - max(stamps)) * 1e-9)
    late = [late for rows in sent.values() for stamp, late in rows if 0 < killed_ns - stamp < 2 * SECOND]
    return KillTrial(sum(map(len, stored.values())), expected, missing, newest_s, float(np.max(late, initial=0.0)))
