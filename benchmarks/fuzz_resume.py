"""Kill a finetuning run at random steps and moments, start it again each time, and compare it with an undisturbed one.

    python benchmarks/fuzz_resume.py [--kills 10] [--steps 60] [--seed 0] [--model FOLDER] [--dataset FOLDER]

Real processes, ended by SIGKILL. Loss curve and adapter must be equal to the last bit; prints where each kill struck.
Without a dataset it builds a small one from a synthetic bag. The tests do a small part of the same.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from collector.dataset.builder import main as build
from finetune import TINY_BASE
from tests.helpers.synthetic_bag import COURSE, drive_course, write_bag
from tests.helpers.training_runs import adapter, command, curve, finish, kill_at, last_step


def main() -> int:
    """Run both and compare; returns 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--checkpoint-every", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--model", type=Path, default=TINY_BASE)
    parser.add_argument("--dataset", type=Path)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        dataset = arguments.dataset
        if dataset is None:
            bag = write_bag(root / "bag", drive_course(COURSE * 4), lap_at=lambda t_s: 1 + int(t_s // 30))
            dataset = root / "set"
            build(["--bags", str(bag), "--out", str(dataset), "--stride", "30", "--val-fraction", "0.3"])
        options = (
            "--steps",
            str(arguments.steps),
            "--batch_size",
            "4",
            "--learning_rate",
            "2e-3",
            "--lora_dropout",
            "0.1",
            "--reasoning_dropout",
            "0.3",
            "--validate_every",
            "10",
            "--checkpoint_every",
            str(arguments.checkpoint_every),
        )
        whole, killed = root / "whole", root / "killed"
        began = time.monotonic()
        finish(command(arguments.model, dataset, whole, *options))
        print(f"undisturbed: {arguments.steps} steps in {time.monotonic() - began:.0f} s", flush=True)
        words = command(arguments.model, dataset, killed, *options)
        # From 0, while samples may still be encoded, to the last but one; a kill needs a step that is still to come.
        for number, step in enumerate(sorted(draw.sample(range(arguments.steps - 1), arguments.kills)), start=1):
            before = last_step(killed)
            struck = kill_at(words, killed, max(step, 0), delay_s=draw.uniform(0.0, 0.3))
            print(f"kill {number:2d}: at step {struck} (had {before} from before)", flush=True)
        finish(words)
        same_curve = curve(killed) == curve(whole)
        ours, theirs = adapter(killed), adapter(whole)
        same_adapter = ours.keys() == theirs.keys() and all(bool((ours[k] == theirs[k]).all()) for k in ours)
        print(f"{len(curve(whole))} lines of the loss curve equal: {same_curve}")
        print(f"{len(theirs)} tensors of the adapter equal to the last bit: {same_adapter}")
        return 0 if same_curve and same_adapter else 1


if __name__ == "__main__":
    sys.exit(main())
