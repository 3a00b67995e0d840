"""The doctor's rows about topics, one by one: what each must say to make sense, and the cure when it does not. Pure."""

from __future__ import annotations

from collector.doctor.facts import Endpoint, FrameFacts, RosFacts, Row, State
from collector.doctor.hearing import PAUSED, START_SIMULATOR, fits, has_simulator, heard_row, nodes, types
from collector.ros import topics as interface
from collector.ros.topics import Topic

# Subscribed while listening; and what is only looked up in the graph.
LISTENED = (*interface.FROM_SIMULATOR, interface.CONTROL_CMD)
LOOKED_UP = (interface.GEAR_CMD, interface.CONTROL_MODE_REQUEST)
# Localisation's inputs, and a topic only AWSIM's own domain has; none of them is ours to read.
GNSS_TOPIC, IMU_TOPIC, ADMIN_TOPIC = "/sensing/gnss/nav_sat_fix", "/sensing/imu/imu_raw", "/admin/awsim/state"

_CAMERA_CURE = (
    "start AWSIM with --camera gpu (its dev and eval scripts pass --camera off), the embedded simulator with "
    "camera:=true"
)
_GIVE_POSE = "give it a pose: ros2 service call /set_initial_pose std_srvs/srv/Trigger"
_NOBODY_DRIVES = (
    "nobody drives, and a kart that stands still gives no samples: start a controller (control_method:=), or "
    "alpamayo-mono simulate expert:=true"
)
_NOT_NEEDED = "samples do not need it: only the bag will lack it"
# What a recording lacks without a topic that is not required.
_OPTIONAL: tuple[tuple[str, Topic, str], ...] = (
    (
        "camera info",
        interface.CAMERA_INFO,
        "the bag will lack the camera's intrinsics: note them by hand, or publish them",
    ),
    ("velocity", interface.VELOCITY_STATUS, "speeds will come from the poses alone, which must then be smooth"),
    ("steering", interface.STEERING_STATUS, _NOT_NEEDED),
    ("gear", interface.GEAR_STATUS, _NOT_NEEDED),
    ("control mode", interface.CONTROL_MODE, _NOT_NEEDED),
    ("status", interface.AWSIM_STATUS, "laps will not be told apart when samples are split"),
    ("camera mount", interface.TF_STATIC, "the bag will lack the camera's mounting: note it by hand, or publish it"),
)
_SLOW_CAMERA = 0.8  # AWSIM's runs at 9.5 of its 10 Hz
_LOSSY, _HOPELESS = 0.01, 0.5
_TOO_SLOW = 0.9
_OTHER_CLOCK_S = 60.0
_ONE_CLOCK = "start every node with use_sim_time:=true (on a real vehicle with false)"
# Nodes that hear control_cmd without driving anything.
_ONLY_LISTEN = ("alpamayo_record", "rosbag2_recorder", "rviz", "rqt", "foxglove_bridge")


def topic_rows(ros: RosFacts, purpose: str, use_sim_time: bool = True, by_wheels: bool = False) -> list[Row]:
    """Every row about a topic that the run planned (``"record"`` or ``"drive"``) depends on.

    A drive ``by_wheels`` alone needs no poses.
    """
    rows = [_simulator(ros)] if not has_simulator(ros) else []
    rows += [_camera(ros), _odometry(ros), _clock(ros, purpose, use_sim_time), *_stamps(ros), *_state(ros)]
    if purpose == "record":
        rows += [heard_row(name, topic, ros, "warning", cure) for name, topic, cure in _OPTIONAL]
        silent = "the controller is silent: has the session started, is the control mode autonomous?"
        rows.append(heard_row("driving", interface.CONTROL_CMD, ros, "warning", _NOBODY_DRIVES, silent))
    else:
        if by_wheels:
            rows = [_unmeasured(row) if row.name == "odometry" and row.state == "failed" else row for row in rows]
            cure = "the vehicle's interface must run: by its wheels the driver knows where it is"
            for name, topic in (("velocity", interface.VELOCITY_STATUS), ("steering", interface.STEERING_STATUS)):
                rows.append(heard_row(name, topic, ros, "failed", cure))
        laps = "laps are not counted without it: end the drive with duration_s:="
        rows += [heard_row("status", interface.AWSIM_STATUS, ros, "warning", laps), _other_driver(ros)]
        rows += [
            _obeys("control_cmd", interface.CONTROL_CMD, ros, "failed"),
            _obeys("gear_cmd", interface.GEAR_CMD, ros, "warning"),
            _obeys("engage", interface.CONTROL_MODE_REQUEST, ros, "warning"),
        ]
    return rows


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


def _simulator(ros: RosFacts) -> Row:
    found = f"no simulator in ROS domain {ros.domain}: nobody publishes camera, clock or vehicle status"
    if ros.other_domains:
        where = " or ".join(map(str, ros.other_domains))
        return Row("simulator", "failed", f"{found}; there is one in domain {where}", f"export ROS_DOMAIN_ID={where}")
    if ros.has_admin:
        found += "; this is AWSIM's own domain, its vehicles are elsewhere"
        return Row("simulator", "failed", found, f"export ROS_DOMAIN_ID={ros.domain + 1} for the first vehicle")
    cure = (
        "start AWSIM with --camera gpu, or the embedded simulator: alpamayo-mono simulate. Is it running? Then set its "
        "ROS_DOMAIN_ID here (AWSIM's first vehicle is in domain 1)"
    )
    if ros.discovery:
        cure += f"; {ros.discovery} hides other machines"
    if ros.closed_domains:
        found += f" (domain {', '.join(map(str, ros.closed_domains))} could not be joined to look for one)"
    return Row("simulator", "failed", found, cure)


def _camera(ros: RosFacts) -> Row:
    facts, info = ros.topics[interface.CAMERA_IMAGE.name], ros.topics[interface.CAMERA_INFO.name]
    # Each frame comes with its small camera_info, which passes where the frame is lost.
    lost = max(facts.lost, info.received - facts.received - 1)
    in_transit = lost > 1 and facts.lost < lost
    lossy = transport_cure(ros)
    silent = lossy if in_transit else f"{_CAMERA_CURE}; with the camera on: {lossy}"
    row = heard_row("camera", interface.CAMERA_IMAGE, ros, "failed", _CAMERA_CURE, slow=_SLOW_CAMERA, silent=silent)
    if not facts.publishers and has_simulator(ros):
        return row.but(row.state, "nobody publishes it: the simulator runs with its camera off", row.cure)
    if in_transit and not facts.received:
        found = f"{row.found}, while {info.received} camera_info did: frames are lost on their way"
        return row.but(row.state, found, row.cure)
    return row if ros.frame is None or not facts.received else _picture(row, ros.frame, facts.received, lost, lossy)


def _picture(row: Row, frame: FrameFacts, received: int, lost: int, lossy: str) -> Row:
    """The camera's row, with what its newest frame and the frames ``lost`` add; ``lossy`` is the cure for losses."""
    if frame.defect:
        return row.but("failed", frame.defect, "let the camera publish what was expected")
    found = f"{frame.width}x{frame.height} {frame.encoding}, {row.found}"
    share = lost / (lost + received)
    if share > _LOSSY:
        found += f"; {lost} of {lost + received} frames lost on their way"
        return row.but("failed" if share > _HOPELESS else "warning", found, lossy)
    if frame.is_blank and row.state == "ok":
        cure = "look at the picture (rqt_image_view): Unity's -headless and a covered lens give such frames"
        return row.but("warning", f"{found}; every pixel is alike", cure)
    return row.but(row.state, found, row.cure)


def _odometry(ros: RosFacts) -> Row:
    off = [name for name, there in (("GNSS", ros.has_gnss), ("IMU", ros.has_imu)) if not there]
    cure = (
        f"{' and '.join(off)} off, so there is no localisation: start AWSIM with --gnss on --imu on (its e2e scripts "
        "switch them off), and Autoware beside it"
        if off
        else f"start Autoware's localisation; if it runs, {_GIVE_POSE}"
    )
    row = heard_row("odometry", interface.ODOMETRY, ros, "failed", cure)
    if ros.bad_poses:
        received = ros.topics[interface.ODOMETRY.name].received
        found = f"{ros.bad_poses} of {received} poses are not finite numbers"
        return row.but("failed", found, f"restart the localisation, and {_GIVE_POSE}")
    return row


def _unmeasured(row: Row) -> Row:
    """The row of poses that a drive can do without."""
    cure = "nothing, if nobody is to measure the drive (rules e2e); else: "
    return row.but("warning", row.found, cure + row.cure)


def _clock(ros: RosFacts, purpose: str, use_sim_time: bool) -> Row:
    if not use_sim_time:
        return Row("clock", "ok", "not asked for (--no-use-sim-time)", topic=interface.CLOCK.name)
    facts = ros.topics[interface.CLOCK.name]
    bad: State = "failed" if purpose == "drive" or facts.publishers else "warning"
    cure = "start the simulator; for a real vehicle: use_sim_time:=false, and --no-use-sim-time here"
    row = heard_row("clock", interface.CLOCK, ros, bad, cure, silent="the simulator is paused or hangs: let it run")
    if row.state == "failed" or ros.time_scale is None:
        return row
    found = f"{ros.time_scale:.2f} simulated seconds per second"
    announced = ros.announced_scale
    if ros.time_scale < PAUSED:
        return row.but("failed", f"{found}: the simulator is paused", "let it run (AWSIM: its window)")
    if announced is not None and ros.time_scale < _TOO_SLOW * announced:
        cure = "this machine is too slow for it: close other programs, or expect the run to take longer"
        return row.but("warning", f"{found}, while the simulator wants {announced:.2f}", cure)
    return row.but(row.state, f"{found}, {row.found}", row.cure)


def _stamps(ros: RosFacts) -> list[Row]:
    frame_ns, pose_ns = ros.topics[interface.CAMERA_IMAGE.name].newest_ns, ros.topics[interface.ODOMETRY.name].newest_ns
    if frame_ns is None or pose_ns is None:
        return []
    apart_s = (frame_ns - pose_ns) * 1e-9
    if abs(apart_s) > _OTHER_CLOCK_S:
        found = f"frames and poses are {abs(apart_s):.3g} s apart: stamped by two clocks"
        return [Row("time stamps", "failed", found, _ONE_CLOCK)]
    return [Row("time stamps", "ok", "frames and poses are stamped by one clock")]


def _state(ros: RosFacts) -> list[Row]:
    if ros.state == interface.AWSIM_STATES[-1]:
        found = f"over: the simulator says {ros.state!r}"
        return [Row("session", "failed", found, "start or reset it", interface.AWSIM_STATE.name)]
    return [Row("session", "ok", repr(ros.state), topic=interface.AWSIM_STATE.name)] if ros.state else []


def _other_driver(ros: RosFacts) -> Row:
    facts = ros.topics[interface.CONTROL_CMD.name]
    if not facts.publishers:
        return Row("other drivers", "ok", "none", topic=interface.CONTROL_CMD.name)
    cure = (
        "stop it, two drivers fight: start Autoware without a controller, the embedded simulator with expert:=false "
        "(a node that was killed stays listed for up to 20 s)"
    )
    found = f"{nodes(facts.publishers)} publishes it too ({facts.received} messages came)"
    return Row("other drivers", "failed", found, cure, interface.CONTROL_CMD.name)


def _obeys(name: str, topic: Topic, ros: RosFacts, bad: State) -> Row:
    """Whether somebody hears what the driver says, by the type and the QoS it says it with."""
    there = [
        entry for entry in ros.topics[topic.name].subscribers if not entry.node.lstrip("/").startswith(_ONLY_LISTEN)
    ]
    ears = [entry for entry in there if entry.type == topic.type]
    offer = Endpoint("", topic.type, topic.reliability, topic.durability)
    obeying = [entry for entry in ears if fits(offer, entry)]
    if obeying:
        return Row(name, "ok", f"heard by {nodes(obeying)}", topic=topic.name)
    found = "nobody listens"
    cure = "start AWSIM in this domain, or the embedded simulator with expert:=false"
    if ears:
        found = f"{nodes(ears)} asks for it {ears[0].durability}; the driver offers it {topic.durability}"
        cure = f"let {nodes(ears)} ask for it {topic.durability}"
    elif there:
        found = f"{nodes(there)} expects {types(there)}, the driver sends {topic.type}"
        cure = "use the messages of the competition's stack (autoware_auto)"
    elif not has_simulator(ros):
        cure = START_SIMULATOR
    return Row(name, bad, found, cure, topic.name)
