"""The doctor's rows about topics: who publishes them, whether they can be heard, how fast, and whether they make sense.

Pure: :class:`RosFacts` in, rows out. Each check stops at the first thing that is wrong, since the rest follows from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from collector.doctor.facts import Endpoint, RosFacts, TopicFacts
from collector.doctor.network import transport_cure
from collector.doctor.rows import Row, State
from collector.stack import (
    AWSIM_STATE,
    AWSIM_STATES,
    AWSIM_STATUS,
    CAMERA_IMAGE,
    CAMERA_INFO,
    CLOCK,
    CONTROL_CMD,
    CONTROL_MODE,
    CONTROL_MODE_REQUEST,
    FROM_SIMULATOR,
    GEAR_CMD,
    GEAR_STATUS,
    ODOMETRY,
    STEERING_STATUS,
    TF_STATIC,
    VELOCITY_STATUS,
    Topic,
)

# Subscribed while listening; and what is only looked up in the graph.
LISTENED = (*FROM_SIMULATOR, CONTROL_CMD)
LOOKED_UP = (GEAR_CMD, CONTROL_MODE_REQUEST)
# Localisation's inputs, and a topic only AWSIM's own domain has; none of them is ours to read.
GNSS_TOPIC, IMU_TOPIC, ADMIN_TOPIC = "/sensing/gnss/nav_sat_fix", "/sensing/imu/imu_raw", "/admin/awsim/state"

_CAMERA_CURE = (
    "start AWSIM with --camera gpu (its dev and eval scripts pass --camera off), the embedded simulator with "
    "camera:=true"
)
_GIVE_POSE = "give it a pose: ros2 service call /set_initial_pose std_srvs/srv/Trigger"
_NOT_NEEDED = "samples do not need it: only the bag will lack it"
# What a recording lacks without a topic that is not required.
_OPTIONAL: tuple[tuple[str, Topic, str], ...] = (
    ("camera info", CAMERA_INFO, "the bag will lack the camera's intrinsics: note them by hand, or publish them"),
    ("velocity", VELOCITY_STATUS, "speeds will come from the poses alone, which must then be smooth"),
    ("steering", STEERING_STATUS, _NOT_NEEDED),
    ("gear", GEAR_STATUS, _NOT_NEEDED),
    ("control mode", CONTROL_MODE, _NOT_NEEDED),
    ("status", AWSIM_STATUS, "laps will not be told apart when samples are split"),
    ("camera mount", TF_STATIC, "the bag will lack the camera's mounting: note it by hand, or publish it"),
)
# Cameras run a little below their nominal rate (AWSIM: 9.5 of 10 Hz), localisations often at half of it.
_SLOW_CAMERA, _SLOW = 0.8, 0.5
_LOSSY, _HOPELESS = 0.01, 0.5
_PAUSED, _TOO_SLOW = 0.01, 0.9
_OTHER_CLOCK_S = 60.0
# Nodes that hear control_cmd without driving anything.
_ONLY_LISTEN = ("alpamayo_record", "rosbag2_recorder", "rviz", "rqt", "foxglove_bridge")


def topic_rows(ros: RosFacts, purpose: str, use_sim_time: bool = True) -> list[Row]:
    """Every row about a topic that the run planned (``"record"`` or ``"drive"``) depends on."""
    rows = [_simulator(ros)] if not has_simulator(ros) else []
    rows += [_camera(ros), _odometry(ros), _clock(ros, purpose, use_sim_time), *_stamps(ros), *_state(ros)]
    if purpose == "record":
        rows += [_heard(name, topic, ros, "warning", cure) for name, topic, cure in _OPTIONAL]
        rows.append(_who_drives(ros))
    else:
        laps = "laps are not counted without it: end the drive with duration_s:="
        rows += [_heard("status", AWSIM_STATUS, ros, "warning", laps), _other_driver(ros)]
        rows += [
            _obeys("control_cmd", CONTROL_CMD, ros, "failed"),
            _obeys("gear_cmd", GEAR_CMD, ros, "warning"),
            _obeys("engage", CONTROL_MODE_REQUEST, ros, "warning"),
        ]
    return rows


def has_simulator(ros: RosFacts) -> bool:
    """Whether anybody publishes any of the simulator's topics (poses and mounts come from other nodes as well)."""
    own = [topic for topic in FROM_SIMULATOR if topic not in (ODOMETRY, TF_STATIC)]
    return any(ros.topics[topic.name].publishers for topic in own)


def fits(offered: Endpoint, asked: Endpoint | Topic) -> bool:
    """Whether a subscriber asking for this hears a publisher offering that (what is unknown counts as fitting)."""
    return not (
        (offered.reliability == "best_effort" and asked.reliability == "reliable")
        or (offered.durability == "volatile" and asked.durability == "transient_local")
    )


def _simulator(ros: RosFacts) -> Row:
    found = f"no simulator in ROS domain {ros.domain}: nobody publishes camera, clock or vehicle status"
    if ros.other_domains:
        where = " or ".join(map(str, ros.other_domains))
        return Row("simulator", "failed", f"{found}; there is one in domain {where}", f"export ROS_DOMAIN_ID={where}")
    if ros.has_admin:
        return Row(
            "simulator", "failed", f"{found}; this is AWSIM's own domain, its vehicles are elsewhere",
            f"export ROS_DOMAIN_ID={ros.domain + 1} for the first vehicle",
        )
    cure = (
        "start AWSIM with --camera gpu, or the embedded simulator: alpamayo-mono simulate. Is it running? Then set its "
        "ROS_DOMAIN_ID here (AWSIM's first vehicle is in domain 1)"
    )
    if ros.discovery:
        cure += f"; {ros.discovery} hides other machines"
    return Row("simulator", "failed", found, cure)


def _heard(
    name: str, topic: Topic, ros: RosFacts, bad: State, absent: str, silent: str = "", slow: float = _SLOW
) -> Row:
    """The checks every topic shares; ``bad`` is what a missing topic makes of the row."""
    facts = ros.topics[topic.name]
    right = [offer for offer in facts.publishers if offer.type == topic.type]
    audible = [offer for offer in right if fits(offer, topic)]

    def row(state: State, found: str, cure: str = "") -> Row:
        return Row(name, state, found, cure, topic.name)

    if not facts.publishers:
        return row(bad, "nobody publishes it", absent if has_simulator(ros) else "start the simulator (row simulator)")
    if not right:
        return row(
            bad, f"published as {_types(facts.publishers)} by {_nodes(facts.publishers)}, expected {topic.type}",
            f"publish it as {topic.type}, or remap that publisher to another name",
        )
    if topic.type in ros.type_errors:
        return row(bad, f"{topic.type} cannot be used", "see the row messages")
    if not audible:
        offered, asked = _qos_words(right[0], topic)
        return row(
            bad, f"{_nodes(right)} offers it {offered}; who asks for {asked} hears nothing",
            f"let {_nodes(right)} publish it {asked}",
        )
    if not facts.received:
        expected = (topic.rate_hz or 0.0) * ros.listened_s * (1.0 if ros.time_scale is None else ros.time_scale)
        heard = f"published by {_nodes(audible)}, but nothing came in {ros.listened_s:.1f} s"
        if ros.time_scale is not None and ros.time_scale >= _PAUSED and topic.rate_hz and expected < 2.0:
            return row("warning", f"{heard}, which is {expected:.1f} of its periods", "listen longer: --seconds 30")
        if _stands_still(ros, topic):
            return row(bad, heard, "let the simulator run first (row clock)")
        return row(bad, heard, silent or absent)
    strange = [offer for offer in facts.publishers if offer not in audible]
    if strange:
        return row(
            "warning", f"heard, but also published as {_types(strange)}, {_qos(strange[0])}, by {_nodes(strange)}",
            f"stop {_nodes(strange)}, or remap its topic",
        )
    if len(audible) > 1 and topic is not TF_STATIC:
        jumping = "; stamps jump back and forth between them" if facts.went_back else ""
        return row(
            bad if facts.went_back else "warning", f"{len(audible)} publishers ({_nodes(audible)}){jumping}",
            "stop all but one (a node that was killed stays listed for up to 20 s)",
        )
    found = f"{_rate(facts, topic)}, {_qos(audible[0])}, from {_nodes(audible)}"
    if topic.rate_hz and facts.rate_hz is not None and facts.rate_hz < slow * topic.rate_hz:
        return row("warning", found, f"slower than it should be: is {_nodes(audible)} short of CPU or GPU?")
    return row("ok", found)


def _stands_still(ros: RosFacts, topic: Topic) -> bool:
    """Whether a paused simulator explains the silence of a topic."""
    clock_runs = ros.time_scale is not None and ros.time_scale >= _PAUSED
    return topic is not CLOCK and bool(ros.topics[CLOCK.name].publishers) and not clock_runs


def _camera(ros: RosFacts) -> Row:
    facts, info = ros.topics[CAMERA_IMAGE.name], ros.topics[CAMERA_INFO.name]
    # Each frame comes with its small camera_info, which passes where the frame is lost.
    lost = max(facts.lost, info.received - facts.received - 1)
    in_transit = lost > 1 and facts.lost < lost
    row = _heard(
        "camera", CAMERA_IMAGE, ros, "failed", _CAMERA_CURE, slow=_SLOW_CAMERA,
        silent=transport_cure(ros) if in_transit else f"{_CAMERA_CURE}; with the camera on: {transport_cure(ros)}",
    )
    if not facts.publishers and has_simulator(ros):
        return replace(row, found="nobody publishes it: the simulator runs with its camera off")
    if in_transit and not facts.received:
        return replace(row, found=f"{row.found}, while {info.received} camera_info did: frames are lost on their way")
    frame = ros.frame
    if frame is None:
        return row
    if frame.defect:
        return replace(row, state="failed", found=frame.defect, cure="let the camera publish what was expected")
    row = replace(row, found=f"{frame.width}x{frame.height} {frame.encoding}, {row.found}")
    share = lost / (lost + facts.received)
    if share > _LOSSY:
        return replace(
            row, state="failed" if share > _HOPELESS else "warning",
            found=f"{row.found}; {lost} of {lost + facts.received} frames lost on their way", cure=transport_cure(ros),
        )
    if frame.is_blank and row.state == "ok":
        return replace(
            row, state="warning", found=f"{row.found}; every pixel is alike",
            cure="look at the picture (rqt_image_view): Unity's -headless and a covered lens give such frames",
        )
    return row


def _odometry(ros: RosFacts) -> Row:
    off = [name for name, there in (("GNSS", ros.has_gnss), ("IMU", ros.has_imu)) if not there]
    cure = (
        f"{' and '.join(off)} off, so there is no localisation: start AWSIM with --gnss on --imu on (its e2e scripts "
        "switch them off), and Autoware beside it"
        if off else
        f"start Autoware's localisation; if it runs, {_GIVE_POSE}"
    )
    row = _heard("odometry", ODOMETRY, ros, "failed", cure)
    if ros.bad_poses:
        received = ros.topics[ODOMETRY.name].received
        return replace(
            row, state="failed", found=f"{ros.bad_poses} of {received} poses are not finite numbers",
            cure=f"restart the localisation, and {_GIVE_POSE}",
        )
    return row


def _clock(ros: RosFacts, purpose: str, use_sim_time: bool) -> Row:
    if not use_sim_time:
        return Row("clock", "ok", "not asked for (--no-use-sim-time)", topic=CLOCK.name)
    facts = ros.topics[CLOCK.name]
    row = _heard(
        "clock", CLOCK, ros, "failed" if purpose == "drive" or facts.publishers else "warning",
        "start the simulator; for a real vehicle: use_sim_time:=false, and --no-use-sim-time here",
        silent="the simulator is paused or hangs: let it run",
    )
    if row.state == "failed" or ros.time_scale is None:
        return row
    found = f"{ros.time_scale:.2f} simulated seconds per second"
    announced = ros.announced_scale
    if ros.time_scale < _PAUSED:
        return replace(
            row, state="failed", found=f"{found}: the simulator is paused", cure="let it run (AWSIM: its window)"
        )
    if announced is not None and ros.time_scale < _TOO_SLOW * announced:
        return replace(
            row, state="warning", found=f"{found}, while the simulator wants {announced:.2f}",
            cure="this machine is too slow for it: close other programs, or expect the run to take longer",
        )
    return replace(row, found=f"{found}, {row.found}")


def _stamps(ros: RosFacts) -> list[Row]:
    frame_ns, pose_ns = ros.topics[CAMERA_IMAGE.name].newest_ns, ros.topics[ODOMETRY.name].newest_ns
    if frame_ns is None or pose_ns is None:
        return []
    apart_s = (frame_ns - pose_ns) * 1e-9
    if abs(apart_s) > _OTHER_CLOCK_S:
        return [
            Row(
                "time stamps", "failed", f"frames and poses are {abs(apart_s):.3g} s apart: stamped by two clocks",
                "start every node with use_sim_time:=true (on a real vehicle with false)",
            )
        ]
    return [Row("time stamps", "ok", "frames and poses are stamped by one clock")]


def _state(ros: RosFacts) -> list[Row]:
    if ros.state == AWSIM_STATES[-1]:
        return [
            Row("session", "failed", f"over: the simulator says {ros.state!r}", "start or reset it", AWSIM_STATE.name)
        ]
    return [Row("session", "ok", repr(ros.state), topic=AWSIM_STATE.name)] if ros.state else []


def _who_drives(ros: RosFacts) -> Row:
    return _heard(
        "driving", CONTROL_CMD, ros, "warning",
        "nobody drives, and a kart that stands still gives no samples: start a controller (control_method:=), or "
        "alpamayo-mono simulate teacher:=true",
        silent="the controller is silent: has the session started, is the control mode autonomous?",
    )


def _other_driver(ros: RosFacts) -> Row:
    facts = ros.topics[CONTROL_CMD.name]
    if not facts.publishers:
        return Row("other drivers", "ok", "none", topic=CONTROL_CMD.name)
    return Row(
        "other drivers", "failed", f"{_nodes(facts.publishers)} publishes it too ({facts.received} messages came)",
        "stop it, two drivers fight: start Autoware without a controller, the embedded simulator with teacher:=false "
        "(a node that was killed stays listed for up to 20 s)",
        CONTROL_CMD.name,
    )


def _obeys(name: str, topic: Topic, ros: RosFacts, bad: State) -> Row:
    """Whether somebody hears what the driver says, by the type and the QoS it says it with."""
    there = [
        entry for entry in ros.topics[topic.name].subscribers if not entry.node.lstrip("/").startswith(_ONLY_LISTEN)
    ]
    ears = [entry for entry in there if entry.type == topic.type]
    offer = Endpoint("", topic.type, topic.reliability, topic.durability)
    obeying = [entry for entry in ears if fits(offer, entry)]
    if obeying:
        return Row(name, "ok", f"heard by {_nodes(obeying)}", topic=topic.name)
    if ears:
        return Row(
            name, bad, f"{_nodes(ears)} asks for it {ears[0].durability}; the driver offers it {topic.durability}",
            f"let {_nodes(ears)} ask for it {topic.durability}", topic.name,
        )
    if there:
        return Row(
            name, bad, f"{_nodes(there)} expects {_types(there)}, the driver sends {topic.type}",
            "use the messages of the competition's stack (autoware_auto)", topic.name,
        )
    cure = "start AWSIM in this domain, or the embedded simulator with teacher:=false"
    return Row(
        name, bad, "nobody listens", cure if has_simulator(ros) else "start the simulator (row simulator)", topic.name
    )


def _rate(facts: TopicFacts, topic: Topic) -> str:
    if topic.rate_hz is None:
        return f"{facts.received} heard"
    measured = "one message" if facts.rate_hz is None else f"{facts.rate_hz:.1f} Hz"
    return f"{measured} (nominal {topic.rate_hz:g})"


def _nodes(endpoints: Iterable[Endpoint]) -> str:
    return " and ".join(dict.fromkeys(entry.node for entry in endpoints))


def _types(endpoints: Sequence[Endpoint]) -> str:
    return " and ".join(dict.fromkeys(entry.type for entry in endpoints))


def _qos(offer: Endpoint) -> str:
    return " ".join(filter(None, [offer.reliability, offer.durability * (offer.durability != "volatile")])).replace(
        "_", " "
    )


def _qos_words(offered: Endpoint, asked: Topic) -> tuple[str, str]:
    """The policy that does not fit, as offered and as asked."""
    if offered.reliability == "best_effort" and asked.reliability == "reliable":
        return "best effort", "reliable"
    return "volatile", "transient local"
