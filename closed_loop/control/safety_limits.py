"""Every limit of the safety monitor, each with where it comes from.

Measured limits lie beyond what drives of the demo's adapter and of the bare base showed in process (five drives of
``city``, its mirror and ``random:9001``, plans 0.15 to 1.3 s late), so that nothing brakes where nothing is wrong.
Those of the kart are of the Challenge's documents and of :class:`collector.vehicle.model.VehicleModel`.
"""

from __future__ import annotations

from dataclasses import dataclass

from collector.common.arguments import Arguments, argument


@dataclass(frozen=True)
class SafetyLimits(Arguments):
    """When to brake. Times are vehicle seconds, see :meth:`closed_loop.control.safety_monitor.SafetyMonitor.check`."""

    # ages of the newest camera frame and odometry are those of their arrival, on a steady clock; what is refused has
    # not arrived
    frame_age_s: float = argument(0.5, "vehicle seconds without a usable frame before the kart is braked", 0.05, 10.0)
    odometry_age_s: float = argument(
        0.5, "vehicle seconds without usable odometry before the kart is braked", 0.05, 10.0
    )
    # plan in use seen longer ago than this (image stamp t0 to now: inference time counts, and so does a policy that
    # hangs or a camera that repeats an old image)
    plan_age_s: float = argument(
        1.5,
        "age of the plan's image, vehicle seconds, before the kart is braked; a fast kart is braked sooner, and where "
        "plans always take longer, the next one is waited for",
        0.05,
        30.0,
    )
    refused_age_s: float = (
        0.35  # the same for both while what arrives is refused: a fault that is known needs no patience
    )
    clock_age_s: float = 0.5  # the node's clock, once it has run, stands still for longer than this

    # Pictures, of 255 grey levels. Rendered ones have a contrast of 37 to 48 and a roughness of 0.01 (1920 x 1080) to
    # 0.19 (64 x 36); of noise the latter is 1.1. A night scene without any light is a black picture.
    picture_px: int = 16  # smallest width and height
    picture_contrast: float = 3.0  # least standard deviation over blocks of a picture
    picture_roughness: float = 0.7  # most difference of neighbouring pixels, in standard deviations of the picture
    # least correlation with the picture before (0.24 and more 1 m apart; 0 of two pictures of nothing in common)
    picture_likeness: float = 0.1
    # share of the picture, and of its lower third, where the road is, that may lose every structure during a drive (of
    # plain asphalt 0.29 was seen; half a picture is 0.5)
    picture_flat: float = 0.45
    picture_flat_low: float = 0.45
    picture_still: float = 0.3  # mean change of the blocks below which two pictures are the same but for noise ...
    # share of blocks that change from one picture to the next when the kart moves (0.15 to 0.4 were seen 0.1 m apart)
    picture_moved: float = 0.18
    picture_same_m: float = 0.15  # ... which no kart that has moved so far sees twice bit by bit ...
    picture_still_m: float = 1.0  # ... nor so far but for noise
    # A stamp is compared with the arrival, on the clock of the odometry's stamps. AWSIM's pictures are up to 0.105 s
    # older than theirs says, and on a busy machine (30 processes for two cores) either came 0.2 s after the other.
    stamp_behind_s: float = 0.35
    stamp_ahead_s: float = 0.35

    # Odometry. The kart brakes with 3 m/s^2, accelerates with 1.5 and turns by 2 rad/s at 5 m/s (wheels at 0.4 rad).
    odometry_place_m: float = 1e8  # no map has such coordinates
    odometry_speed_mps: float = 30.0  # three times the kart's top speed
    speed_step_mps: float = 1.0  # change of speed that is noise ...
    speed_rate_mps2: float = 4.0  # ... and that the kart can make
    yaw_step_rad: float = 0.15
    yaw_rate_radps: float = 3.0
    place_step_m: float = 0.5  # between two messages, beyond what the speed explains (an EKF's correction is 0.2 m)
    # Poses against speeds over a window: an offset of the reference point by a wheelbase turns into a motion aside.
    drift_m: float = 0.3
    drift_share: float = 0.35  # of the way by speed: wheels of another size, slip, drift
    offset_m: float = 1.2

    # Answers to commands. Unknown karts turned their wheels by 0.6 to 1.8 of what was expected (ten planted ones),
    # after up to half a second; the kart's road is flat, and a climb of 10 % takes 1 m/s^2.
    answer_late_s: float = 0.8  # commands of so long ago may still be on their way
    answer_angle_shares: tuple[float, float] = (0.5, 2.0)
    answer_angle_rad: float = 0.06
    # (seconds, m/s): within so long a speed may fall by so much more than it was told to ...
    answer_fall: tuple[tuple[float, float], ...] = ((1.0, 1.6), (2.0, 2.4))
    answer_slower_mps: float = 0.8  # ... where it falls by this at least
    answer_back_mps: float = 0.5  # no plan leads backwards: a kart that rolls so fast is in a wrong gear, or was pushed
    answer_stand_s: float = 0.4  # wheels that stand while the kart is pushed and the picture moves

    # Plans. The first waypoint of 1277 plans lay at most 0.03 m from where the speed leads, their curvature over 1.5 m
    # was at most 0.33 (1/m), the lateral acceleration of a kart that brakes into their bends with 2 m/s^2 at most 4.4.
    plan_start_m: float = 0.5  # the first waypoint, 0.1 s after t0, farther than this from where the speed leads
    plan_step_m: float = 2.0  # two neighbouring waypoints farther apart than this (2 m in 0.1 s is 20 m/s)
    plan_turn_rad: float = 1.0  # heading change between neighbouring waypoints
    # wheels at their stop (0.64 rad x 0.62) bend the way by 0.386 (1/m), and what is drawn is a little uneven
    plan_curvature_1pm: float = 0.5
    plan_lateral_mps2: float = 8.0
    plan_brake_mps2: float = 2.0  # with which a kart gets slower before a bend
    plan_back_m: float = 0.5  # a plan that leads back by more than this (a standing kart's trembles by 0.28 m)
    plan_offset_m: float = 4.0  # the vehicle farther than this from every waypoint of the plan it follows (a teleport)
    # Two plans in a row may lie so far apart at so many seconds after the second's t0: at most 1.2, 1.9 and 2.6 m were
    # seen with the adapter at 5 m/s, less when slower.
    plan_change_m: tuple[float, float, float] = (2.2, 3.0, 3.8)
    plan_change_s: tuple[float, float, float] = (1.5, 2.0, 2.5)
    plan_repeat_m: float = 1.0  # the same for plans that are equal bit by bit, within a second
    # A plan that is late may be driven on for so many metres after it should have been replaced.
    plan_late_m: float = 1.6

    # Driving on after a fault: everything has been good for so long, with so many frames; twice as long for each other
    # fault of the last seconds, up to eight times.
    recover_s: float = 0.8
    recover_frames: int = 3
    doubt: int = 4  # times as long after odometry that contradicted itself: of a standing kart no motion tells
    repeat_s: float = 20.0


DEFAULT_LIMITS = SafetyLimits()
