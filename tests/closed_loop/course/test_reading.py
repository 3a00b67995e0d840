"""What is said about the reading of a course file, and what a person can say behind its name; hostile files."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from closed_loop.course.design import check_named, course_named
from closed_loop.course.files import Reading, read_course
from collector.common.errors import MonoError
from tests.helpers.course_files import ring_lanes, write_osm


def racetrack(path: Path, heading: str, scale: float = 1.0, rows: str = "{x:.3f},{y:.3f},1.1,0.9") -> Path:
    """An oval of 30 and 20 m as TUM's racetrack database writes them, 1.1 m wide to the right and 0.9 m to the left."""
    angle = np.linspace(0.0, 2.0 * np.pi, 160, endpoint=False)
    lines = [rows.format(x=scale * 30.0 * np.cos(a), y=scale * 20.0 * np.sin(a)) for a in angle]
    path.write_text(heading + "\n" + "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "1.5,2.5\n1,2\n", "names of the columns"),
        ("a.csv", "x,y,x\n1,2,3\n", "'x' twice"),
        ("a.csv", "x,y,x_m,y_m\n1,2,3,4\n", "x_m,y_m and x,y"),
        ("a.csv", "x,y,track_width\n1,2,3\n", "'track_width', which may be a width"),
        ("a.csv", "x,y,width_left_m\n1,2,3\n", "'width_left_m', which may be a width"),
        ("a.csv", "x,y,w_tr_right\n1,2,3\n", "'w_tr_right', which may be a width"),
        ("a.csv", "x,y,d_left\n1,2,3\n", "'d_left', which may be a width"),
        ("a.csv", "x,y,道幅\n1,2,3\n", "'道幅', which may be a width"),
        ("a.csv", "x [m],y [m],左 (m)\n1,2,3\n", "'左', which may be a width"),
        ("a.csv", "x,y\n1_0,2\n", "data row 1"),
        ("a.csv", "x y\n1 2\n", "commas, semicolons or tabs"),
        ("a.csv", "My line\n1,2\n", "2 cells under 1 names ('My line')"),
        ("a.csv", "x,y\n" + "\n" * 500_000, "more than 400,000 lines"),
        ("a.csv", "x,y\n" + "#\n" * 500_000, "more than 400,000 lines"),
        ("a.csv", "x,y\n" + "0,0\n30,0\n" * 200, "turns back on itself at (30.0, 0.0) and at 397 more places"),
        ("a.csv", "x,y\n89630,07,43130,69\n", "data row 1: 4 cells under 2 names"),
        ("a.csv", "x;y\n1,5;2,5\n", "data row 1"),
        ("a.csv", "x,y\n1e9,0\n0,1e9\n", "at most 1e+08"),
        ("a.csv", "x,y\n" + "\n".join(f"{k * 9e6},{k % 2}" for k in range(9)), "unit=mm"),
        ("a.csv", "x,y\n" + "\n".join(f"{k * 70.0},0" for k in range(9)), "points 70 m apart"),
        ("a.csv", "x,y\n" + "\n".join(f"{k},{40 * (k == 20)}" for k in range(40)), "between data rows 20 and 21"),
        ("a.csv", "x,y\n" + "1,2\n3,4\n" * 110_000, "more than 200,000 rows"),
        ("a.csv", "x,y\n" + "1," * 20_000, "more than 10,000 characters"),
        ("a.csv", "x,y\n" + '"' + "1\n" * 200_000, "a.csv"),
        ("a.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "git lfs pull"),
        (
            "a.csv",
            "lanelet_id,boundary_type,local_x,local_y\n1,left,0,0\n1,left,9e7,0\n1,right,0,3\n1,right,9e7,3\n",
            "at most 25000 m",
        ),
        ("a.osm", "<osm>" * 100_000, "elements more than 30 deep"),
        ("a.osm", "<osm><way id='7'/><way id='7'/></osm>", "the way '7' twice"),
        ("a.osm", '<!DOCTYPE o [<!ENTITY a "b">]><osm>&a;</osm>', "defines the entity 'a'"),
        (
            "a.osm",
            "<osm><node id='7'><tag k='local_x' v='nan'/><tag k='local_y' v='0'/></node></osm>",
            "node 7: local_x",
        ),
        (
            "a.osm",
            "<osm><node id='7'><tag k='local_x' v='1e9'/><tag k='local_y' v='0'/></node></osm>",
            "node 7: local_x",
        ),
    ],
)
def test_a_hostile_or_doubtful_file_ends_in_a_sentence(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(MonoError) as caught:
        read_course(tmp_path / name)
    assert complaint in str(caught.value) and "Expected" in str(caught.value)


def test_a_file_too_large_for_a_course_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("wb") as file:
        file.truncate(5_000_000_000)  # a hole, not bytes
    with pytest.raises(MonoError, match="at most 32 MiB"):
        read_course(tmp_path / "a.csv")


@pytest.mark.parametrize("mark", ["", "# ", "# a hash of the run\n# another\n# "])
def test_the_widths_of_racetrack_databases_are_read(tmp_path: Path, mark: str) -> None:
    course = read_course(racetrack(tmp_path / "track.csv", mark + "x_m,y_m,w_tr_right_m,w_tr_left_m"))
    assert course.closed and course.width_left_m == pytest.approx(0.9) and course.width_right_m == pytest.approx(1.1)
    (tmp_path / "other.csv").write_text((tmp_path / "track.csv").read_text().replace(",", "; "))
    assert np.array_equal(read_course(tmp_path / "other.csv").xy, course.xy)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\r"])
def test_any_end_of_line_and_units_behind_names_are_read(tmp_path: Path, end: str) -> None:
    course = read_course(racetrack(tmp_path / "line.csv", "x [m],y(m),w_tr_right_m,w_tr_left_m"))
    text = (tmp_path / "line.csv").read_text()
    (tmp_path / "line.csv").write_bytes(text.replace("\n", end).encode())
    assert course.closed and np.array_equal(read_course(tmp_path / "line.csv").xy, course.xy)


def test_points_less_than_a_millimetre_apart_are_a_line_too(tmp_path: Path) -> None:
    angle = np.linspace(0.0, 2.0 * np.pi, 40_000, endpoint=False)
    lines = [f"{5.0 * np.cos(a):.6f},{5.0 * np.sin(a):.6f}" for a in angle]
    (tmp_path / "dense.csv").write_text("x,y\n" + "\n".join(lines))
    assert read_course(tmp_path / "dense.csv").length_m == pytest.approx(10.0 * np.pi, rel=1e-3)


@pytest.mark.parametrize("width_m", [25.0, 60.0])
def test_a_road_wider_than_its_course_is_still_one_lap(tmp_path: Path, width_m: float) -> None:
    track = racetrack(tmp_path / "track.csv", "x_m,y_m,w_tr_right_m,w_tr_left_m")
    track.write_text(track.read_text().replace(",1.1,0.9", f",{width_m},{width_m}"))
    course = read_course(track)
    assert course.closed and course.length_m == pytest.approx(158.6, rel=0.01)


@pytest.mark.parametrize("column", ["s_m", "yaw", "psi_rad", "psi_rad of TUM", "quaternion"])
def test_rows_against_their_own_columns_are_said_and_turned_round(
    tmp_path: Path, column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a = np.linspace(0.0, 2.0 * np.pi, 160, endpoint=False)
    yaw = np.arctan2(20.0 * np.cos(a), -30.0 * np.sin(a))
    heading, values = {
        "s_m": ("s_m", [a]),
        "psi_rad of TUM": ("psi_rad", [yaw - 0.5 * np.pi]),
        "quaternion": ("z_quat,w_quat", [np.sin(0.5 * yaw), np.cos(0.5 * yaw)]),
    }.get(column, (column, [yaw]))
    table = np.stack([30.0 * np.cos(a), 20.0 * np.sin(a), 0.9 + 0.0 * a, 1.1 + 0.0 * a, *values], axis=1)
    head = f"x_m,y_m,width_left_m,width_right_m,{heading}"
    for name, rows in (("onward", table), ("against", table[::-1])):
        lines = [",".join(f"{value:.5f}" for value in row) for row in rows]
        (tmp_path / f"{name}.csv").write_text("\n".join([head, *lines]))
        read_course(tmp_path / f"{name}.csv")
    onward, against = capsys.readouterr().err.splitlines()
    assert "column" not in onward and f"run against its own column {heading.split(',')[0]}" in against
    turned = course_named(f"{tmp_path / 'against.csv'}:backward")
    assert "driven from its last row to its first" in capsys.readouterr().err
    assert turned.width_left_m == pytest.approx(1.1) and (turned.curvature_1pm > 0.0).all()


def test_columns_that_nobody_knows_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_course(racetrack(tmp_path / "line.csv", "X_m,Y_m,grip,lap_time"))
    said = capsys.readouterr().err
    assert "columns not used: grip, lap_time" in said and "has no widths: 3 m to either edge" in said


def test_what_a_person_says_behind_a_file_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = racetrack(tmp_path / "line.csv", "x_m,y_m,speed,z")
    assert course_named(f"{line}:half_width=1.5").half_width_m == 1.5
    assert not course_named(f"{line}:open").closed
    small = racetrack(tmp_path / "mm.csv", "x_m,y_m,w_tr_right_m,w_tr_left_m", 1000.0, "{x:.0f},{y:.0f},1100,900")
    with pytest.raises(MonoError, match="unit=mm"):
        course_named(str(small))
    course = course_named(f"{small}:unit=mm")
    assert course.length_m == pytest.approx(158.6, rel=0.01) and course.width_left_m == pytest.approx(0.9)
    capsys.readouterr()
    half = racetrack(tmp_path / "half.csv", "x_m,y_m,speed,z")
    half.write_text("\n".join(half.read_text().splitlines()[:100]))
    course_named(str(half))
    said = capsys.readouterr().err
    assert "an open line" in said and "it ends at (-2" in said and "drives it once" in said
    assert course_named(f"{half}:closed").closed
    odd = tmp_path / "a:open"
    odd.write_text(line.read_text())
    assert course_named(str(odd)).closed  # a file of that name


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("widht=3", "'widht=3' behind the course file"),
        ("half_width=-1", "half_width=-1"),
        ("half_width=0", "half_width=0"),
        ("half_width=nan", "half_width=nan"),
        ("half_width=1e9", "half_width=1e9"),
        ("half_width=900", "half_width=900"),
        ("closed:open", "each once"),
        ("lap=0", "no lap 0 of 1"),
        ("unit=km", "unit=km"),
        ("lanes=4", "means nothing for such a file"),
    ],
)
def test_an_option_that_nobody_knows_is_refused(tmp_path: Path, option: str, complaint: str) -> None:
    line = racetrack(tmp_path / "line.csv", "x_m,y_m,speed,z")
    with pytest.raises(MonoError) as caught:
        course_named(f"{line}:{option}")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "spec", ["x" * 5000 + ".csv", "no\0where.csv", "line.csv:closed", "/root/none/a.csv", ":", "/"]
)
def test_a_path_that_leads_nowhere_is_one_sentence(spec: str) -> None:
    for look in (check_named, course_named):
        with pytest.raises(MonoError, match=r"existing \.csv or \.osm file"):
            look(spec)


def test_a_map_says_its_lanes_and_lets_a_person_name_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_osm(tmp_path / "ring.osm")
    read_course(path)
    said = capsys.readouterr().err
    assert "1 other loops close too" in said and "FILE:lanes=ID+ID" in said and "lane1" in said
    pit = course_named(f"{path}:lanes=lane0+pit")
    assert pit.closed and pit.length_m < 2.0 * np.pi * 20.0 - 2.0
    with pytest.raises(MonoError, match="means nothing"):
        course_named(f"{path}:half_width=2")
    capsys.readouterr()
    (tmp_path / "torn.osm").write_text(path.read_text().replace('k="local_x"', 'k="x"', 1))
    assert read_course(tmp_path / "torn.osm").length_m < 2.0 * np.pi * 20.0
    assert "without local_x/local_y are left out" in capsys.readouterr().err


def test_long_maps_take_memory_with_their_length_alone(tmp_path: Path) -> None:
    """Comparing all points with all edges took 8 GB for the 6 km of a map of 2023; 0.2 GB for this one."""
    rows = ["lanelet_id,boundary_type,sequence_order,local_x,local_y"]
    for k in range(12):
        angle = np.linspace(k, k + 1, 42) * 2.0 * np.pi / 12
        for side, radius_m in (("left", 163.0), ("right", 157.0)):
            places = radius_m * np.stack([np.cos(angle), -np.sin(angle)], axis=1)
            rows += [f"{k},{side},{i},{x:.3f},{y:.3f}" for i, (x, y) in enumerate(places)]
    (tmp_path / "long.csv").write_text("\n".join(rows))
    tracemalloc.start()
    course = read_course(tmp_path / "long.csv")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert course.closed and course.length_m == pytest.approx(2.0 * np.pi * 160.0, rel=1e-3)
    assert course.width_left_m == pytest.approx(3.0, abs=0.05) and most < 70e6


def test_a_node_without_metres_costs_the_lanes_and_loops_that_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_osm(tmp_path / "map.osm")
    text = path.read_text()
    x_m, y_m = (round(float(value), 4) for value in ring_lanes()["lane1"][0][10])
    tags = f'<tag k="local_x" v="{x_m}"/><tag k="local_y" v="{y_m}"/>'
    assert text.count(tags) == 1
    path.write_text(text.replace(tags, ""))
    course = read_course(path)
    said = capsys.readouterr().err
    assert course.closed and "pit" in said.partition("lanes ")[2].partition(";")[0], "the ring without its lane1"
    assert "are left out, and any loop through them (lane1)" in said


def test_edges_that_nobody_gave_and_that_overlap_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    angle = np.linspace(0.0, np.pi, 40)[1:-1]
    out, back = np.arange(0.0, 60.0), np.arange(60.0, 0.0, -1.0)
    for apart_m, overlaps in ((4.5, True), (8.0, False)):
        turn = np.stack([60.0 + 0.5 * apart_m * np.sin(angle), 0.5 * apart_m * (1.0 - np.cos(angle))], axis=1)
        line = np.vstack([np.stack([out, 0.0 * out], 1), turn, np.stack([back, 0.0 * back + apart_m], 1)])
        path = tmp_path / f"hairpin_{overlaps}.csv"
        path.write_text("x_m,y_m\n" + "\n".join(f"{x:.4f},{y:.4f}" for x, y in line))
        read_course(path, Reading(closed=False))
        said = capsys.readouterr().err
        assert overlaps == ("these edges overlap: two stretches are 4.5 m apart at (" in said)
        read_course(path, Reading(closed=False, half_width_m=1.0))
        assert "overlap" not in capsys.readouterr().err
