"""The recording node: the contract's topics into one mcap bag, camera frames as JPEG, and a report at the end.

Thin: subscriptions hand serialised bytes to :class:`collector.recording.recorder.BagRecorder`, which owns every queue
and thread. It records whichever simulator speaks the Challenge's interface.

    python -m collector.recording.node --ros-args -p out:=FOLDER -p duration_s:=60
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rclpy.node import Node

from collector.common.cpu import core_count
from collector.common.errors import MonoError
from collector.geometry.discontinuity import StampedTime
from collector.recording.recorder import BagRecorder
from collector.recording.report import loss_cause
from collector.ros.conversions import stamp_ns_of
from collector.ros.families import choose_family
from collector.ros.graph import ONE_SIMULATOR, Strangers, UnorderedClock, Watch
from collector.ros.message_packages import message_class
from collector.ros.parameters import RecordParameters, declare_parameters
from collector.ros.session import Session, node_main
from collector.ros.topics import (
    CAMERA_IMAGE,
    CAMERA_JPEG,
    CLOCK,
    MARKS,
    ODOMETRY,
    RECORDED,
    Message,
    Topic,
    qos_profile,
)

PROGRESS_S = 5.0
# A queue this deep rides out a second without the interpreter, at any rate the interface has.
MESSAGE_DEPTH, FRAME_DEPTH = 200, 20
GONE_AFTER_S = 3.0  # wall seconds of silence after which a simulator without a publisher counts as gone


class RecordNode(Node):
    """Subscriptions and bookkeeping of one recording; :meth:`record` runs until it is over."""

    def __init__(self, session: Session) -> None:
        super().__init__("alpamayo_record")
        self._session = session
        self.values = declare_parameters(self, RecordParameters)
        self._out = Path(self.values.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}-record")
        v = self.values
        family = choose_family(self, v.messages, v.wait_s, session.stop.is_set)
        print(family, flush=True)
        recorded = tuple(map(family.topic, (*RECORDED, *MARKS)))
        types = {topic: message_class(topic.type) for topic in (*recorded, CAMERA_IMAGE)}
        splits = v.split_mb * 1_000_000, round(v.split_minutes * 60e9)
        self._recorder = BagRecorder(
            self._out, recorded, v.jpeg_quality, v.queue_frames, v.jpeg_workers, v.image_scale, *splits
        )
        self._counts = {topic.name: 0 for topic in recorded}
        self._began_s = time.monotonic()  # whom we hear, we can hear from here on
        self._last_s = self._began_s
        self._time = StampedTime()
        self._failed = ""
        self._strangers = Strangers(self, Watch(self, ONE_SIMULATOR, UnorderedClock()))
        self._simulators = 0  # most publishers of poses at once
        for topic in recorded:
            if topic is CAMERA_JPEG:
                continue
            # raw: the bytes as they came, without taking them apart and putting them together again.
            qos = qos_profile(topic, MESSAGE_DEPTH)
            self.create_subscription(types[topic], topic.name, self._take(topic), qos, raw=True)
        self.create_subscription(
            types[CAMERA_IMAGE], CAMERA_IMAGE.name, self._take_frame, qos_profile(CAMERA_IMAGE, FRAME_DEPTH)
        )

    def _take(self, topic: Topic) -> Callable[[bytes], None]:
        name, counts, write = topic.name, self._counts, self._recorder.write

        def take(data: bytes) -> None:
            self._last_s = time.monotonic()
            counts[name] += 1
            write(name, time.time_ns(), data)

        return take

    def _take_frame(self, message: Message) -> None:
        self._last_s = time.monotonic()
        stamp_ns = stamp_ns_of(message.header.stamp)
        self._counts[CAMERA_JPEG.name] += 1
        self._time.add(stamp_ns)
        self._recorder.write_image(
            stamp_ns,
            message.height,
            message.width,
            message.encoding,
            message.data,
            received_ns=time.time_ns(),
            step=message.step,
            is_bigendian=bool(message.is_bigendian),
            frame_id=message.header.frame_id,
        )

    @property
    def _recorded_s(self) -> float:
        """Seconds of the camera's own time so far."""
        return self._time.passed_s

    def _watch(self) -> None:
        """Print progress and notice the end, in a thread of its own."""
        next_s = time.monotonic() + PROGRESS_S
        while not self._session.stop.wait(0.1):
            now_s = time.monotonic()
            if now_s >= next_s:
                next_s += PROGRESS_S
                print(self._progress(now_s), flush=True)
            self._simulators = max(self._simulators, self.count_publishers(ODOMETRY.name))
            ending = self._ending(now_s)
            if ending:
                self._session.end(ending)

    def _ending(self, now_s: float) -> str:
        if self._recorder.error:
            return self._recorder.error
        if found := self._strangers.look(now_s):
            self._failed = str(found[0].error(found[1]))
            return self._failed
        duration_s = self.values.duration_s
        # The frame that closes the interval belongs to it: 60 s at 10 Hz are 601 frames.
        if duration_s and self._recorded_s >= duration_s:
            return f"{duration_s:g} s recorded"
        if now_s - self._began_s > self.values.wait_s:
            self._failed = self._essential_missing(self.values.wait_s)
            if self._failed:
                return self._failed
        heard = any(self._counts.values())
        if heard and now_s - self._last_s > GONE_AFTER_S and self.count_publishers(ODOMETRY.name) == 0:
            return "the simulator has left"
        return ""

    def _missing(self) -> tuple[str, ...]:
        return tuple(topic.name for topic in RECORDED if not self._counts[topic.name])

    def _essential_missing(self, waited_s: float) -> str:
        """A sentence with the likeliest cause where frames or poses, without which a bag is useless, are missing."""
        missing = self._missing()
        if CAMERA_JPEG.name not in missing and ODOMETRY.name not in missing:
            return ""
        if self._simulators and not self.count_publishers(ODOMETRY.name) + self.count_publishers(CLOCK.name):
            return f"nothing arrived on {', '.join(missing)}, and the simulator has left. Do: see why it ended"
        cure = "Do: record with GNSS and IMU on, so that localisation runs (AWSIM's e2e modes switch them off)"
        if CLOCK.name in missing and ODOMETRY.name in missing:
            cure = "Do: start the simulator in this ROS domain (ROS_DOMAIN_ID), or add simulator:=true"
        elif CAMERA_JPEG.name in missing:
            frames = f"Expected: frames on {CAMERA_IMAGE.name}"
            cure = f"{frames}. Do: start AWSIM with --camera gpu (its dev script passes off)"
        return f"nothing arrived on {', '.join(missing)} in {waited_s:.0f} s. {cure}"

    def _progress(self, now_s: float) -> str:
        frames, missing = self._counts[CAMERA_JPEG.name], self._missing()
        line = f"{now_s - self._began_s:6.0f} s: {frames} frames over {self._recorded_s:.1f} s of simulated time"
        line += f", {sum(self._counts.values()) - frames} other messages"
        return line + (f"; nothing yet on {', '.join(missing)}" if missing else "")

    def record(self) -> int:
        """Run to the end; returns 0 for a bag with frames and poses in it.

        Raises:
            MonoError: no frames or poses came, the disk took no more, or more was lost than ``max_loss`` allows.
        """
        watch = threading.Thread(target=self._watch, name="watch", daemon=True)
        watch.start()
        try:
            self._session.spin(self)
        finally:
            self._session.end("an error")
            watch.join(5.0)
            report = self._recorder.close()
        if report.missing:
            report = replace(report, loss_cause=loss_cause(report, self._simulators, os.getloadavg()[0], core_count()))
            with suppress(OSError):
                report.write(self._out)
        print(report.table())
        print(f"recording ended: {self._session.why}; bag {self._out}", flush=True)
        if report.error:
            do = f"make room, then alpamayo-mono recover {self._out}; what came before is there"
            if self._recorder.is_finished:
                do = f"make room, or record to another disk with out:=; what came before is whole, in {self._out}"
            found = f"the recording ended after {report.duration_s:.0f} s: {report.error}"
            raise MonoError(found, "room for the whole drive", do)
        if failed := self._failed or self._essential_missing(time.monotonic() - self._began_s):
            raise MonoError(failed)
        max_loss = self.values.max_loss
        if too_much := report.excess(max_loss):
            do = "give the recorder more of the machine, or less to do (image_scale:=0.5)"
            do = f"mend the frames: {report.frame_error}" if report.frame_error else f"{do}; {report.loss_cause}"
            raise MonoError(too_much, f"at most {max_loss:.1%} missing (max_loss:=)", do)
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: ``python -m collector.recording.node``, and the console script of the ROS package."""
    return node_main(RecordNode, RecordNode.record, arguments)


if __name__ == "__main__":
    sys.exit(main())
