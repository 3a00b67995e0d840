"""Courses from files: small ones made here, and the Challenge's own where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from closed_loop.comparison.rollout import RolloutConfig
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.course.files import DEFAULT_HALF_WIDTH_M, Reading, read_course
from closed_loop.simulator.expert import ExpertConfig
from collector.common.errors import MonoError
from tests.helpers.course_files import ORIGIN, circle, ring_lanes, write_osm
from tests.helpers.rollouts import drive

REAL = Path(os.environ.get("ALPAMAYO_COURSES", Path(__file__).resolve().parents[3] / ".." / "shared" / "courses"))
REAL_FILES = (
    "cctb_lanelet2_map.osm",
    "cctb_lane_boundaries.csv",
    "cctb_centreline.csv",
    "raceline_awsim_15km.csv",
    "raceline_awsim_30km.csv",
    "mpc_traj_mincurv.csv",
)


def write_raceline(path: Path, points: np.ndarray) -> Path:
    rows = [f"{x:.6f},{y:.6f},6.5,0,0,0,1,4.17" for x, y in points]
    path.write_text("x,y,z,x_quat,y_quat,z_quat,w_quat,speed\n" + "\n".join(rows) + "\n")
    return path


def write_boundaries(path: Path) -> Path:
    rows = ["lanelet_id,way_id,boundary_type,node_id,sequence_order,local_x,local_y,elevation,latitude,longitude"]
    for name, sides in ring_lanes().items():
        for side, points in zip(("left", "right"), sides, strict=True):
            listed = [f"{name},w{side},{side},{k},{k + 1},{x:.4f},{y:.4f},6.5,0,0" for k, (x, y) in enumerate(points)]
            rows += listed[::2] + listed[1::2]  # the order is a column, not the place in the file
    path.write_text("\n".join(rows))
    return path


def check_ring(course: Course) -> None:
    assert course.closed and course.length_m == pytest.approx(2.0 * np.pi * 20.0, rel=0.01)
    radius = np.linalg.norm(course.xy - ORIGIN, axis=1)
    assert np.abs(radius - 20.0).max() < 0.1
    assert course.yaw_rad[-1] < course.yaw_rad[0]  # clockwise, as the lanes run
    assert np.abs(course.width_left_m - 3.0).max() < 0.1 and np.abs(course.width_right_m - 3.0).max() < 0.1


def test_a_raceline_becomes_a_closed_course_in_its_own_map(tmp_path: Path) -> None:
    course = read_course(write_raceline(tmp_path / "line.csv", circle(20.0, 43)))  # last point repeats the first
    assert course.name == "line" and course.closed
    assert course.length_m == pytest.approx(2.0 * np.pi * 20.0, rel=1e-3)
    assert np.abs(np.linalg.norm(course.xy - ORIGIN, axis=1) - 20.0).max() < 0.01
    assert course.xy[0] == pytest.approx([ORIGIN[0] + 20.0, ORIGIN[1]], abs=1e-6)
    assert (course.width_left_m == DEFAULT_HALF_WIDTH_M).all()
    assert course_named(str(tmp_path / "line.csv")).length_m == course.length_m
    assert (read_course(tmp_path / "line.csv", Reading(half_width_m=2.2)).width_right_m == 2.2).all()


def test_a_line_whose_ends_do_not_meet_is_open(tmp_path: Path) -> None:
    course = read_course(write_raceline(tmp_path / "half.csv", circle(20.0, 22, 0.0, np.pi)))
    assert not course.closed and course.length_m == pytest.approx(np.pi * 20.0, rel=1e-3)


def test_an_mpc_line_and_a_centreline_with_widths(tmp_path: Path) -> None:
    points = circle(15.0, 94)
    rows = [f"{k:.3f}, {x:.5f}, {y:.5f}, 0.0, 0.07, 9.8, -5.1" for k, (x, y) in enumerate(points)]
    (tmp_path / "mpc.csv").write_text("s_m,x_m,y_m,psi_rad,kappa_radpm,vx_mps,ax_mps2\n" + "\n".join(rows))
    course = read_course(tmp_path / "mpc.csv")
    assert course.closed and (course.width_left_m == 3.0).all()
    rows = [f"{k},{x:.5f},{y:.5f},0,0,{2.5 + 0.5 * (k > 46)},3.5" for k, (x, y) in enumerate(points[:-1])]
    text = "\ufeffs_m,x_m,y_m,yaw_rad,kappa_1pm,width_left_m,width_right_m\n" + "\n".join(rows)
    (tmp_path / "centre.csv").write_text(text, encoding="utf-8")
    course = read_course(tmp_path / "centre.csv")
    assert course.width_left_m.min() == pytest.approx(2.5) and course.width_left_m.max() == pytest.approx(3.0)
    assert course.width_left_m[len(course.xy) // 4] == pytest.approx(2.5)
    assert course.width_right_m == pytest.approx(3.5)


def test_the_main_loop_of_a_map_is_found_among_branches(tmp_path: Path) -> None:
    check_ring(read_course(write_osm(tmp_path / "ring.osm")))


def test_lane_boundaries_give_the_same_road(tmp_path: Path) -> None:
    check_ring(read_course(write_boundaries(tmp_path / "bounds.csv")))


def test_lanes_that_do_not_close_give_an_open_road(tmp_path: Path) -> None:
    text = write_boundaries(tmp_path / "bounds.csv").read_text().splitlines()
    (tmp_path / "open.csv").write_text("\n".join(line for line in text if not line.startswith(("lane3", "pit"))))
    course = read_course(tmp_path / "open.csv")
    assert not course.closed and course.length_m == pytest.approx(1.5 * np.pi * 20.0, rel=0.02)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "", "begins with ''"),
        ("a.csv", "lap,time\n1,2\n", "begins with 'lap,time'"),
        ("a.csv", "x,y,z,x_quat,y_quat,z_quat,w_quat,speed\n", "0 different points"),
        ("a.csv", "x,y,speed\n1,2,3\n4,oops,6\n", "data row 2"),
        ("a.csv", "x,y,speed\n1,2,3\n4\n", "data row 2"),
        ("a.csv", "x,y,speed\n1,2,3\nnan,2,3\n", "not a finite number"),
        ("a.csv", "x,y,speed\n" + "\n".join(f"139.78{k:03d},35.62,3" for k in range(50)), "projected first"),
        ("a.csv", "lanelet_id,boundary_type,local_x,local_y\n1,middle,0,0\n", "left or right"),
        ("a.csv", "lanelet_id,boundary_type,local_x,local_y\n1,left,0,0\n1,left,5,0\n", "without lanes"),
        ("a.osm", "<osm><node id='1'", "Lanelet2 map"),
        ("a.osm", "<osm><node id='1' lat='35' lon='139'/></osm>", "local_x/local_y"),
        ("a.csv", b"\xff\xfe\x00\x01\x80", "a.csv"),
    ],
)
def test_a_file_that_is_no_course_is_refused_with_a_reason(
    tmp_path: Path, name: str, content: str | bytes, complaint: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MonoError) as caught:
        read_course(path)
    assert complaint in str(caught.value) and "Expected" in str(caught.value)


@pytest.mark.skipif(not REAL.is_dir(), reason="no folder of real courses: set ALPAMAYO_COURSES to one")
@pytest.mark.parametrize("name", REAL_FILES)
def test_a_real_file_gives_the_expert_a_lap(name: str) -> None:
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    course = read_course(path)
    assert course.closed and 340.0 < course.length_m < 370.0
    assert course.yaw_rad[-1] - course.yaw_rad[0] == pytest.approx(-2.0 * np.pi, abs=0.3)  # clockwise
    lap = drive(course, ExpertConfig(), config=RolloutConfig())
    assert lap.finished and not lap.events and np.abs(lap.lateral_m).max() < 0.3


@pytest.mark.skipif(not (REAL / "cctb_centreline.csv").is_file(), reason="no real courses")
@pytest.mark.parametrize("name", ["cctb_lanelet2_map.osm", "cctb_lane_boundaries.csv"])
def test_the_middle_found_in_the_real_map_is_the_published_one(name: str) -> None:
    found, published = read_course(REAL / name), read_course(REAL / "cctb_centreline.csv")
    foot = published.project(found.xy)
    assert np.abs(foot.lateral_m).max() < 0.3
    width = found.width_left_m + found.width_right_m
    assert np.abs(width - published.at(foot.s_m, published.width_left_m + published.width_right_m)).mean() < 0.15
