"""Damaged messages, JSON lines and bag files through the whole build; prints where everything went, by reason.

    python benchmarks/fuzz_build.py [--messages 10000] [--lines 1000] [--files 1000] [--seed 0]

Messages are JPEG and raw frames of every encoding, poses, speeds and statuses; files are mcap (chunks, messages or
whole files compressed, or none) and sqlite3 (with and without a write-ahead log). Ends at the first traceback, hang
(10 s of processor) or frame that is not accounted for. The tests do a small part of the same.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from collector.dataset.builder import build_dataset
from collector.dataset.config import BuildConfig
from tests.helpers.damage import fuzz_file, fuzz_line, fuzz_messages
from tests.helpers.synthetic_bag import drive_course, write_bag

_PER_BAG = 250


def main() -> None:
    """Run all three and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000, help=f"in bags of {_PER_BAG}")
    parser.add_argument("--lines", type=int, default=1_000, help="of datasets and of texts to curate")
    parser.add_argument("--files", type=int, default=1_000, help="mcap and sqlite3, now and then a metadata.yaml")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other damage")
    arguments = parser.parse_args()
    # OpenCV tells of every broken picture.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    seeds = range(arguments.seed, arguments.seed + -(-arguments.messages // _PER_BAG))
    messages: Counter[str] = Counter()
    for seed in tqdm(seeds, desc="messages", unit="bag"):
        messages += fuzz_messages(seed, _PER_BAG)
    show(f"{len(seeds) * _PER_BAG} damaged messages among sound ones", messages)
    with tempfile.TemporaryDirectory() as place:
        bag = write_bag(Path(place) / "bag", drive_course())
        build_dataset(BuildConfig((bag,), Path(place) / "out", stride=10, val_fraction=0.0), show_progress=False)
        lines = (Path(place) / "out/metadata.jsonl").read_text().splitlines()
        draw = random.Random(arguments.seed)
        went = (fuzz_line(lines, draw, Path(place)) for _ in range(arguments.lines))
        show(f"{arguments.lines} damaged lines", Counter(tqdm(went, desc="lines", total=arguments.lines)))
    files: Counter[str] = Counter()
    for seed in tqdm(range(arguments.seed, arguments.seed + arguments.files), desc="files"):
        files += fuzz_file(seed)
    show(f"{arguments.files} damaged files", files)
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def show(title: str, went: Counter[str]) -> None:
    """One line per reason, the most frequent first."""
    print(f"\n{title}")
    for reason, count in went.most_common():
        print(f"  {count:>8}  {reason}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
