"""Whether two recordings are one drive: by their poses, by their pictures, and by how these look.

What a copy is called, how it is stored, cut, split or compressed changes none of the three; computing its poses anew
leaves the pictures, compressing its pictures anew leaves the poses, and after both they still look the same.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from collector.bags.reader import BagReader, header_stamp_ns
from collector.common.errors import MonoError
from collector.geometry.constants import NS_PER_S
from collector.pose_tracks.tracks import PoseTrack
from collector.ros.images import FrameError, RawFrame, small_gray
from collector.ros.topics import Message

# So many poses or pictures that agree to the last bit: fewer hold no sample, as many are no accident.
_SAME_DRIVE = 20
_MIX = np.int64(0x2545F4914F6CDD1D)  # odd and large, so that no bit is lost and all of them move
_STANDS_M = 0.001  # two poses in a row that lie no farther apart do not tell one drive from another
_BESIDE_NS = NS_PER_S // 5
_HASHED_BYTES = 65536  # of a picture, evenly spread
# How recordings look is compared at so many stamps that they share.
_LOOKS = 24
# Gray levels, in the mean of a small picture. Measured on rich ones: compressed anew at quality 50 they change by 0.9,
# at 20 by 2.0, scaled to half by 1.5; a drive 0.1 m beside differs by 1.8, one 0.3 m beside by 5.
_SAME_LOOK = 2.5
# And so much less than pictures of one drive differ from each other: where they do not, they tell nothing.
_LOOK_SHARE = 0.1
_MOST_ALIKE = 0.8  # of the pictures; of two simulations that start alike only the first are

Looks = Mapping[int, NDArray[np.float32]]


def _none() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Identity:
    """What tells a recording from others, while it drove; pictures that equal the one before are left out."""

    poses: NDArray[np.int64] = field(default_factory=_none)  # (P,) a hash of stamp and place of each driven pose
    pictures: NDArray[np.int64] = field(default_factory=_none)  # (F,) a hash of each picture
    picture_stamps_ns: NDArray[np.int64] = field(default_factory=_none)  # (F,) its header stamp
    picture_epochs: NDArray[np.int64] = field(default_factory=_none)  # (F,) how often the clock went back before


class PictureHashes:
    """Hashes of a camera's pictures, in order of arrival."""

    def __init__(self) -> None:
        self._rows = array("q")
        self._last = (0, 0)
        self._epoch = 0

    def add(self, message: Message | None) -> None:
        """Note a message of the camera, None where it cannot be read."""
        data = getattr(message, "data", None)
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or not hasattr(message, "header"):
            return
        sample = np.ascontiguousarray(data[:: len(data) // _HASHED_BYTES + 1])
        key = int.from_bytes(hashlib.blake2b(sample.data, digest_size=8).digest(), "big", signed=True)
        stamp_ns = header_stamp_ns(message)
        last_key, last_ns = self._last
        self._epoch += stamp_ns < last_ns - NS_PER_S
        if key != last_key:
            self._rows.extend((key, stamp_ns, self._epoch))
        self._last = key, stamp_ns

    def identity(self, track: PoseTrack) -> Identity:
        """What was noted while the kart of a cut track drove: simulators begin every run alike."""
        poses, stamps_ns = [_none()], [_none()]
        for segment in track.segments:
            moved = np.hypot(*np.diff(segment.poses[:, :2], axis=0).T) > _STANDS_M
            mixed = segment.stamps_ns.copy()
            for column in segment.poses.T:
                mixed = mixed * _MIX ^ np.ascontiguousarray(column).view(np.int64)
            poses.append(mixed[1:][moved])
            stamps_ns.append(segment.stamps_ns[1:][moved])
        rows = np.array(self._rows, np.int64).reshape(-1, 3)
        rows = rows[_is_near(rows[:, 1], np.unique(np.concatenate(stamps_ns)))]
        return Identity(np.concatenate(poses), rows[:, 0], rows[:, 1], rows[:, 2])


def _is_near(stamps_ns: NDArray[np.int64], driven_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which stamps have one of the (rising) others beside them."""
    if len(driven_ns) == 0:
        return np.zeros(len(stamps_ns), bool)
    after = np.searchsorted(driven_ns, stamps_ns)
    beside = driven_ns[np.clip([after - 1, after], 0, len(driven_ns) - 1)]
    return np.asarray(np.min(np.abs(beside - stamps_ns), axis=0) < _BESIDE_NS)


def refuse_copies(
    names: Sequence[str], identities: Sequence[Identity], look: Callable[[int, Sequence[int]], Looks]
) -> None:
    """Refuse (MonoError) a drive that comes twice: one in both splits would make every score too good.

    ``look`` gives the pictures of a recording (by its place) at some stamps as :func:`looks_of` makes them; it is asked
    only where two cameras share their stamps.
    """
    found = [(*row, "poses", "with the same stamps") for row in _shared([one.poses for one in identities])]
    for place, one in enumerate(identities):
        # A camera that sends each picture twice is no copy: that has its own run of the clock.
        stamped = one.pictures * _MIX ^ one.picture_stamps_ns
        runs = [np.unique(stamped[one.picture_epochs == epoch]) for epoch in np.unique(one.picture_epochs)]
        found += [(place, place, count, "pictures", "with the same stamps") for _, _, count in _shared(runs)]
    pictures = [np.unique(one.pictures) for one in identities]
    found += [(*row, "pictures", "that are the same") for row in _shared(pictures)]
    if not found:
        found = list(_alike(identities, look))
    for first, second, count, what, how in sorted(found, key=lambda row: -row[2])[:1]:
        one_name, other = names[first], names[second]
        message = f"the bags {one_name} and {other} hold the same drive: {count} {what} {how}"
        do = f"leave {other} out of --bags"
        if first == second:
            message = f"the bag {one_name} holds {count} {what} twice, {how}"
            do = "take the copies of its files out of the folder, or name a single file"
        raise MonoError(message, "each drive once, or it is in both splits", do)


def _shared(keys: Sequence[NDArray[np.int64]]) -> list[tuple[int, int, int]]:
    """(first, second, how many) of owners that share enough keys; an owner may hold one twice itself."""
    every = np.concatenate([_none(), *keys])
    owners = np.repeat(np.arange(len(keys)), [len(each) for each in keys])
    order = np.lexsort((owners, every))
    same = np.flatnonzero(np.diff(every[order]) == 0)
    pairs = Counter(zip(owners[order][same].tolist(), owners[order][same + 1].tolist(), strict=True))
    return [(first, second, count) for (first, second), count in pairs.items() if count >= _SAME_DRIVE]


def _alike(
    identities: Sequence[Identity], look: Callable[[int, Sequence[int]], Looks]
) -> Iterator[tuple[int, int, int, str, str]]:
    """Recordings whose pictures look the same wherever their stamps are the same."""
    for first, second in combinations(range(len(identities)), 2):
        stamps_ns = np.intersect1d(identities[first].picture_stamps_ns, identities[second].picture_stamps_ns)
        if len(stamps_ns) < _SAME_DRIVE:
            continue
        chosen = stamps_ns[np.linspace(0, len(stamps_ns) - 1, min(_LOOKS, len(stamps_ns))).astype(int)].tolist()
        one, other = look(first, chosen), look(second, chosen)
        both = sorted(one.keys() & other.keys())
        if len(both) < _SAME_DRIVE:
            continue
        views = np.stack([one[ns] for ns in both])
        apart = np.abs(views - np.stack([other[ns] for ns in both])).mean(axis=1)
        usual = np.median(np.abs(views[:, None] - views[None]).mean(axis=2), axis=1)
        alike = (apart < _SAME_LOOK) & (apart < _LOOK_SHARE * usual)
        if alike.mean() >= _MOST_ALIKE:
            yield first, second, len(stamps_ns), "pictures", "with the same stamps, which look the same"


def looks_of(bag: BagReader, topic: str, stamps_ns: Sequence[int]) -> Looks:
    """The pictures of a camera at some stamps, as small gray ones."""
    wanted, found = set(stamps_ns), {}
    for frame in bag.frames(topic):
        if isinstance(frame, RawFrame) and frame.stamp_ns in wanted:
            wanted.discard(frame.stamp_ns)
            try:
                found[frame.stamp_ns] = small_gray(frame).reshape(-1).astype(np.float32)
            except FrameError:
                continue
            if not wanted:
                break
    return found
