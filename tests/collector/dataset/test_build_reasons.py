"""A reason for each cause: what keeps frames out is named as what it is, with what would do instead."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from collector.bags.writer import BagWriter
from collector.calibration.command import calibrate_bag
from collector.calibration.pairs import CalibrateConfig
from collector.common.errors import MonoError
from collector.common.start import MAX_PIXELS
from collector.dataset.build_report import BuildReport
from collector.dataset.builder import main
from collector.dataset.schema import load_manifest
from collector.geometry.discontinuity import CLOCK_BACK
from collector.pose_tracks.sane_stamps import STRAY_STAMP, ZERO_STAMP
from collector.pose_tracks.tracks import CLOCKS_DIFFER, NO_POSE
from collector.ros.images import ENCODINGS, TOO_LARGE, UNDECODABLE, UNKNOWN_ENCODING, FrameError, image_rows
from collector.ros.jpeg import orientation
from collector.ros.topics import CAMERA_IMAGE, CAMERA_JPEG, ODOMETRY, Topic
from tests.helpers.building import build
from tests.helpers.synthetic_bag import (
    SECOND,
    camera_stamps,
    compressed_cdr,
    drive_course,
    image_cdr,
    jpeg,
    odometry_cdr,
    picture,
)

DRIVE = drive_course(((100, 0.0),))
STAMPS = camera_stamps(DRIVE).tolist()
WALL_NS = 1_700_000_000 * SECOND
Rows = list[tuple[int, bytes]]  # arrival and message
FRAMES: Rows = [(ns, compressed_cdr(ns, jpeg(number))) for number, ns in enumerate(STAMPS)]
POSES: Rows = [
    (ns, odometry_cdr(ns, pose, 5.0)) for ns, pose in zip(DRIVE.stamps_ns.tolist(), DRIVE.poses, strict=True)
]


def poses_at(stamp_of: dict[int, int]) -> Rows:
    """The poses with other stamps, arriving when they did."""
    return [
        (ns, odometry_cdr(stamp_of.get(ns, ns), pose, 5.0))
        for ns, pose in zip(DRIVE.stamps_ns.tolist(), DRIVE.poses, strict=True)
    ]


def write(folder: Path, frames: Rows = FRAMES, poses: Rows = POSES, camera: Topic = CAMERA_JPEG) -> Path:
    writer = BagWriter(folder, (camera, ODOMETRY))
    rows = [(ns, camera.name, data) for ns, data in frames] + [(ns, ODOMETRY.name, data) for ns, data in poses]
    for ns, topic, data in sorted(rows):
        writer.write(topic, ns, data)
    writer.close()
    return folder


def said(report: BuildReport) -> str:
    return " | ".join(report.notes)


def test_a_sound_bag_is_worth_no_remark(tmp_path: Path) -> None:
    report, samples, _ = build(tmp_path, write(tmp_path / "bag"))
    assert samples and not report.notes and not report.breaks


def test_an_encoding_we_do_not_know_is_named_with_those_we_do(tmp_path: Path) -> None:
    cdrs = [(ns, image_cdr(ns, picture(n), "32FC1" if n < 40 else "bgr8")) for n, ns in enumerate(STAMPS)]
    report, samples, _ = build(tmp_path, write(tmp_path / "bag", cdrs, camera=CAMERA_IMAGE))
    assert report.rejected[UNKNOWN_ENCODING] == 40 and not report.rejected[UNDECODABLE] and samples
    assert "an image encoded as '32FC1'" in said(report) and all(name in said(report) for name in ENCODINGS)
    cdrs = [(ns, image_cdr(ns, picture(n), "32FC1")) for n, ns in enumerate(STAMPS)]
    bag = write(tmp_path / "none", cdrs, camera=CAMERA_IMAGE)
    with pytest.raises(MonoError, match="encoded as '32FC1'"):
        calibrate_bag(CalibrateConfig(bag, tmp_path / "c"), show_progress=False)


def test_what_is_assumed_of_an_encoding_is_told(tmp_path: Path) -> None:
    cdrs = [(ns, image_cdr(ns, picture(n), "8UC3")) for n, ns in enumerate(STAMPS)]
    report, samples, _ = build(tmp_path, write(tmp_path / "bag", cdrs, camera=CAMERA_IMAGE))
    assert samples and said(report) == f"bag: {CAMERA_IMAGE.name} comes as 8UC3, read as bgr8"


def test_a_stream_in_a_format_that_is_no_pictures_is_named(tmp_path: Path) -> None:
    def video(ns: int) -> bytes:
        return compressed_cdr(ns, b"\x00\x00\x00\x01\x67" + bytes(40)).replace(
            b"bgr8; jpeg compressed bgr8", b"h264 ".ljust(26)
        )

    report, _, _ = build(tmp_path, write(tmp_path / "bag", [(ns, video(ns)) for ns in STAMPS]))
    assert report.rejected[UNKNOWN_ENCODING] and not report.kept and "in the format 'h264" in said(report)


def test_bytes_behind_a_jpeg_are_cut_off_and_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tails = [
        b"\x12\x34\x56",
        b"\xff\xd9\x01",
        b"\xff",
        b"\xff\xd8\xff\xe0\x00\x10JF",
        rng.bytes(1000),
        b"\x00" * 9 + b"\x01",
    ]
    cdrs = [(ns, compressed_cdr(ns, jpeg(n) + tails[n % len(tails)])) for n, ns in enumerate(STAMPS)]
    report, samples, out = build(tmp_path, write(tmp_path / "bag", cdrs))
    plain, expected, other = build(tmp_path / "plain", write(tmp_path / "plain" / "bag"))
    assert samples == expected and report.rejected == plain.rejected
    for name in {name for sample in samples for name in sample.frames}:
        assert (out / name).read_bytes() == (other / name).read_bytes()
    assert said(report) == "bag: frames have bytes behind the end of their JPEG, which were cut off"
    # Zeros behind the end are no news, and stay as they were recorded.
    zeros = [(ns, compressed_cdr(ns, jpeg(n) + bytes(7))) for n, ns in enumerate(STAMPS)]
    quiet, _, kept = build(tmp_path / "zeros", write(tmp_path / "zeros" / "bag", zeros))
    assert not quiet.notes and (kept / samples[0].file_name).read_bytes().endswith(b"\xff\xd9" + bytes(7))


def test_a_second_picture_behind_a_jpeg_is_cut_off(tmp_path: Path) -> None:
    tails = [jpeg(3), b"\xff\xd9", jpeg(5) + bytes(3)]
    cdrs = [(ns, compressed_cdr(ns, jpeg(n) + tails[n % len(tails)])) for n, ns in enumerate(STAMPS)]
    report, samples, out = build(tmp_path, write(tmp_path / "bag", cdrs))
    plain, _, other = build(tmp_path / "plain", write(tmp_path / "plain" / "bag"))
    assert report.rejected == plain.rejected and "which were cut off" in said(report)
    for name in {name for sample in samples for name in sample.frames}:
        assert (out / name).read_bytes() == (other / name).read_bytes()


def turned(data: bytes, number: int, order: str = "little") -> bytes:
    """A JPEG with an Exif block that says how the camera was held."""
    mark, header = {"little": (b"II", b"\x2a\x00"), "big": (b"MM", b"\x00\x2a")}[order]
    values = (8, 4), (1, 2), (0x0112, 2), (3, 2), (1, 4), (number, 2), (0, 2), (0, 4)
    tiff = mark + header + b"".join(value.to_bytes(size, order) for value, size in values)  # type: ignore[arg-type]
    block = b"Exif\x00\x00" + tiff
    return data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]


def test_a_turned_camera_is_told(tmp_path: Path) -> None:
    for order in ("little", "big"):
        for number in range(1, 9):
            assert orientation(turned(jpeg(0), number, order)) == number
            assert cv2.imdecode(np.frombuffer(turned(jpeg(0), number, order), np.uint8), 1).shape[0] == (
                24 if number < 5 else 32
            )
    assert orientation(jpeg(0)) == orientation(b"") == orientation(turned(jpeg(0), 6)[:30]) == 1
    cdrs = [(ns, compressed_cdr(ns, turned(jpeg(n), 6))) for n, ns in enumerate(STAMPS)]
    report, samples, out = build(tmp_path, write(tmp_path / "bag", cdrs))
    assert samples and "the camera was turned (orientation 6)" in said(report) and len(report.notes) == 1
    assert (out / samples[0].file_name).read_bytes()[2:4] == b"\xff\xe1"
    upright = [(ns, compressed_cdr(ns, turned(jpeg(n), 1))) for n, ns in enumerate(STAMPS)]
    assert not build(tmp_path / "upright", write(tmp_path / "upright" / "bag", upright))[0].notes


def test_a_last_row_without_its_padding_is_read(tmp_path: Path) -> None:
    rows, step = picture(7), 32 * 3 + 8
    padded = np.zeros((24, step), np.uint8)
    padded[:, : 32 * 3] = rows.reshape(24, -1)
    data = padded.tobytes()
    for short in (0, 8):
        assert np.array_equal(image_rows(24, 32, "bgr8", step, data[: len(data) - short]), rows)
    with pytest.raises(FrameError, match="a frame of 2487 bytes"):
        image_rows(24, 32, "bgr8", step, data[:-9])


def test_a_jpeg_that_breaks_off_is_none_whatever_is_in_or_behind_it(tmp_path: Path) -> None:
    preview = jpeg(1)
    app1 = b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview  # a picture in the picture, with its end

    def broken(number: int) -> bytes:
        whole = jpeg(number)
        return whole[:2] + app1 + whole[2:-30] + (b"" if number % 2 else bytes(50))

    cdrs = [(ns, compressed_cdr(ns, broken(n))) for n, ns in enumerate(STAMPS)]
    report, _, _ = build(tmp_path, write(tmp_path / "bag", cdrs))
    assert not report.kept and report.rejected[UNDECODABLE] and "breaks off" in said(report)


def test_pictures_of_a_size_no_camera_has_are_refused_unseen(tmp_path: Path) -> None:
    def as_if(width: int, height: int, data: bytes) -> bytes:
        at = data.index(b"\xff\xc0") + 5
        return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]

    png = cv2.imencode(".png", picture(0))[1].tobytes()
    big_png = png[:16] + (30_000).to_bytes(4, "big") * 2 + png[24:]
    pictures = [as_if(30_000, 30_000, jpeg(1)), as_if(65_535, 65_535, jpeg(1) + b"\x01"), big_png]
    cdrs = [(ns, compressed_cdr(ns, pictures[n % 3])) for n, ns in enumerate(STAMPS)]
    report, _, _ = build(tmp_path, write(tmp_path / "bag", cdrs))
    assert report.rejected[TOO_LARGE] > 20 and not report.kept and not report.rejected[UNDECODABLE]
    assert f"a picture of 30000x30000. Expected: at most {MAX_PIXELS} pixels" in said(report)
    with pytest.raises(MonoError, match="30000x30000"):
        calibrate_bag(CalibrateConfig(tmp_path / "bag", tmp_path / "c"), show_progress=False)


def test_raw_images_that_claim_too_much_are_refused(tmp_path: Path) -> None:
    def claiming(ns: int, number: int) -> bytes:
        cdr = image_cdr(ns, picture(number))
        sizes = (24).to_bytes(4, "little") + (32).to_bytes(4, "little")
        assert cdr.count(sizes) == 1
        return cdr.replace(sizes, (2**32 - 1 if number % 2 else 30_000).to_bytes(4, "little") * 2)

    cdrs = [(ns, claiming(ns, n)) for n, ns in enumerate(STAMPS)]
    report, _, _ = build(tmp_path, write(tmp_path / "bag", cdrs, camera=CAMERA_IMAGE))
    assert report.rejected[TOO_LARGE] == report.seen == len(STAMPS)


def test_poses_without_stamps_are_called_that(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", poses=poses_at(dict.fromkeys(DRIVE.stamps_ns.tolist(), 0)))
    for refused in (
        lambda: build(tmp_path, bag),
        lambda: calibrate_bag(CalibrateConfig(bag, tmp_path / "c"), show_progress=False),
    ):
        with pytest.raises(MonoError, match=rf"{ZERO_STAMP} {len(POSES)}.*header.stamp is 0"):
            refused()


def test_single_poses_without_a_stamp_cost_themselves_only(tmp_path: Path) -> None:
    lost = DRIVE.stamps_ns.tolist()[100::50]
    report, samples, out = build(tmp_path, write(tmp_path / "bag", poses=poses_at(dict.fromkeys(lost, 0))))
    _, expected, _ = build(tmp_path / "plain", write(tmp_path / "plain" / "bag"))
    assert [s.stamp_ns for s in samples] == [s.stamp_ns for s in expected]
    assert load_manifest(out)["poses_left_out"] == {"bag": {ZERO_STAMP: len(lost)}} and not report.notes


@pytest.mark.parametrize("far_s", [500.0, -50.0, 1.5])
def test_single_poses_with_a_damaged_stamp_cost_themselves_only(tmp_path: Path, far_s: float) -> None:
    lost = DRIVE.stamps_ns.tolist()[100::50]
    bag = write(tmp_path / "bag", poses=poses_at({ns: ns + round(far_s * SECOND) for ns in lost}))
    report, samples, out = build(tmp_path, bag)
    _, expected, _ = build(tmp_path / "plain", write(tmp_path / "plain" / "bag"))
    assert [s.stamp_ns for s in samples] == [s.stamp_ns for s in expected] and not report.rejected[CLOCK_BACK]
    assert load_manifest(out)["poses_left_out"] == {"bag": {STRAY_STAMP: len(lost)}}


def test_a_clock_that_begins_at_zero_is_no_missing_stamp(tmp_path: Path) -> None:
    start = int(DRIVE.stamps_ns[0])
    frames = [(ns, compressed_cdr(ns - start, jpeg(n))) for n, ns in enumerate(STAMPS)]
    bag = write(tmp_path / "bag", frames, poses_at({ns: ns - start for ns in DRIVE.stamps_ns.tolist()}))
    report, samples, out = build(tmp_path, bag)
    _, expected, _ = build(tmp_path / "plain", write(tmp_path / "plain" / "bag"))
    assert [s.stamp_ns + start for s in samples] == [s.stamp_ns for s in expected]
    assert load_manifest(out)["poses_left_out"] == {"bag": {}} and not report.notes


def test_frames_without_stamps_are_called_that(tmp_path: Path) -> None:
    frames = [(ns, compressed_cdr(0, jpeg(n))) for n, ns in enumerate(STAMPS)]
    report, _, _ = build(tmp_path, write(tmp_path / "bag", frames))
    assert report.rejected == {ZERO_STAMP: len(STAMPS)}
    assert report.notes == [
        f"bag: the header.stamp of {len(STAMPS)} frames is 0: mend what publishes them, and record again"
    ]


def test_two_clocks_are_called_that(tmp_path: Path) -> None:
    frames = [(ns, compressed_cdr(ns + WALL_NS, jpeg(n))) for n, ns in enumerate(STAMPS)]
    bag = write(tmp_path / "bag", frames)
    report, _, _ = build(tmp_path, bag)
    assert report.rejected == {CLOCKS_DIFFER: len(STAMPS)}
    assert "the camera's stamps are 1700000100.0 to 17" in said(report) and "the poses' 100.0 to 1" in said(report)
    with pytest.raises(MonoError, match=r"the camera's stamps are 1700000100.0"):
        calibrate_bag(CalibrateConfig(bag, tmp_path / "c"), show_progress=False)


def test_clocks_some_seconds_apart_are_noticed_though_poses_are_found(tmp_path: Path) -> None:
    for offset_s in (-4, 4):
        frames = [(ns, compressed_cdr(ns + offset_s * SECOND, jpeg(n))) for n, ns in enumerate(STAMPS)]
        report, _, _ = build(tmp_path, write(tmp_path / f"bag{offset_s}", frames))
        assert report.kept and f"lie {offset_s:+.1f} s from those of the poses" in said(report)
        assert report.rejected[CLOCKS_DIFFER] > 20


def test_a_localisation_that_begins_late_is_no_other_clock(tmp_path: Path) -> None:
    report, _, _ = build(tmp_path, write(tmp_path / "bag", poses=POSES[150:]))
    assert report.rejected[NO_POSE] > 30 and not report.rejected[CLOCKS_DIFFER] and not report.notes


def test_the_table_and_the_sentences_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [(ns, compressed_cdr(ns + WALL_NS, jpeg(n))) for n, ns in enumerate(STAMPS)]
    bag = write(tmp_path / "bag", frames)
    with pytest.raises(MonoError, match="none of the"):
        main(["--bags", str(bag), "--out", str(tmp_path / "out")])
    told = capsys.readouterr()
    assert f"rejected: {CLOCKS_DIFFER}" in told.out and "note: bag: most frames have no pose" in told.err
