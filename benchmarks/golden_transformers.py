"""The reference's figures on several versions of transformers: how far off, and whether the tests pass.

    python benchmarks/golden_transformers.py 5.17.0 5.24.0 [--place FOLDER]

Each version gets a virtual environment of its own, with this one's packages behind it, so that only transformers and
what it asks for differ. The folder keeps the environments; without it they are made anew and removed.
"""

from __future__ import annotations

import argparse
import json
import site
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "data" / "golden"
TESTS = ("action_space", "processor", "model", "checkpoint", "alpamayo_1_5", "merge", "reference_faults")
# What each figure may be at most; tokens are compared one by one.
LIMITS = {
    "tokens": 0.0,
    "action space (f64)": 1e-9,
    "logits": 1e-5,
    "losses": 1e-5,
    "velocity": 1e-5,
    "Euler end point": 1e-4,
}


def figures() -> dict[str, Any]:
    """Largest distance from the reference, per kind of figure, in this process's environment."""
    import numpy as np
    import torch
    import transformers

    from finetune.alpamayo.action_space import ActionSpace
    from finetune.alpamayo.cache import VisionFeatures
    from finetune.alpamayo.configuration import RELEASED_ACTION_SPACE
    from finetune.alpamayo.generation import generate
    from finetune.checkpoint import load_model
    from finetune.processing.processor import history_bins

    def gap(ours: torch.Tensor, theirs: torch.Tensor) -> float:
        assert ours.shape == theirs.shape
        return float((ours.detach().double() - theirs.double()).abs().max())

    loaded = load_model(GOLDEN / "tiny")
    model, processor = loaded.model, loaded.processor
    stored = np.load(GOLDEN / "tiny" / "io.npz")
    io = {key: torch.as_tensor(stored[key]) for key in stored.files}
    found: dict[str, Any] = {"transformers": transformers.__version__, "torch": torch.__version__}

    space = np.load(GOLDEN / "action_space.npz")
    poses = [
        torch.as_tensor(np.concatenate([xyz[..., :2], np.arctan2(rot[..., 1:2, 0], rot[..., 0:1, 0])], axis=-1))
        for xyz, rot in ((space["hist_xyz"], space["hist_rot"]), (space["fut_xyz"], space["fut_rot"]))
    ]
    actions = ActionSpace(RELEASED_ACTION_SPACE, dtype=torch.float64).traj_to_action(*poses)
    found["action space (f64)"] = gap(actions, torch.as_tensor(space["action_f64"]))

    grids, mask = io["s0/image_grid_thw"], io["s0/train_cot/attention_mask"]
    bins = history_bins(io["s0/ego_history_xyz"][0, 0], processor.config.history_tokenizer)
    history = (bins + loaded.config.history_token_start_idx).tolist()
    counts = (grids.prod(-1) // 4).tolist()
    ids, _ = processor.prompt_ids(counts, history, "Keep lane; the road bends left.")
    fused = io["s0/train_cot/input_ids_hist_fused"]
    found["tokens"] = float(ids != fused[0, : len(ids)].tolist())
    with torch.no_grad():
        vision = model.encode_images(io["s0/pixel_values"].float(), grids)
        prefix = model.run_prefix(io["s0/train_cot/input_ids_all_fused"], mask, vision, grids)
        found["logits"] = gap(model.text_logits(prefix.hidden[:, ::37]), io["s0/stage1/logits_rows"])
        prefix = model.run_prefix(fused, mask, vision, grids)
        text = model.text_loss(prefix, io["s0/train_cot/labels_mask"])[0]
        noise, t, target = io["train/noise"], io["train/t"], io["s0/stage2/action_target_x"]
        flow = model.flow_loss(prefix, target, noise[:, None], t[:, None])[0]
        found["losses"] = max(
            gap(text, io["s0/stage2/noncausal/loss_vlm_hf"]), gap(flow, io["s0/stage2/noncausal/loss_flow"])
        )
        found["velocity"] = gap(model.velocity(prefix, io["s0/stage2/noisy_x"], t), io["s0/stage2/noncausal/pred"])
        prompt = io["s0/infer/input_ids_raw"].clone()
        prompt[prompt == loaded.config.token_ids.history] = torch.tensor(history)
        prompt = prompt.repeat(2, 1)
        prefix = model.run_prefix(
            prompt, torch.ones_like(prompt), VisionFeatures.cat([vision, vision]), grids.repeat(2, 1)
        )
        answer = generate(
            model, prefix, cot_end_id=processor.cot_end_id, max_new_tokens=64, forced=io["infer/forced_tokens"]
        )
        end = model.sample_actions(answer.prefix, io["infer/x0"])
        found["Euler end point"] = gap(end, io["s0/infer/euler_x"][:, -1])
    return found


def environment(folder: Path, version: str) -> Path:
    """The Python of a virtual environment with this transformers before the packages of the running one."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", f"transformers=={version}"], check=True)
        library = subprocess.run(
            [str(python), "-c", "import site; print(site.getsitepackages()[0])"],
            capture_output=True,
            text=True,
            check=True,
        )
        shared = "\n".join(site.getsitepackages())
        (Path(library.stdout.strip()) / "zz_shared.pth").write_text(shared + "\n")
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", help="of transformers, such as 5.17.0")
    parser.add_argument("--place", type=Path, help="keep the environments here")
    parser.add_argument("--figures", action="store_true", help="print the figures of the running environment as JSON")
    chosen = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if chosen.figures:
        print(json.dumps(figures()))
        return 0
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        print(f"{'transformers':<14}" + "".join(f"{name:>20}" for name in LIMITS) + "  tests")
        print(f"{'at most':<14}" + "".join(f"{limit:>20.0e}" for limit in LIMITS.values()))
        for version in chosen.versions:
            python = environment((chosen.place or Path(scratch)) / version, version)
            done = subprocess.run([str(python), __file__, "--figures"], check=False, capture_output=True, text=True)
            if done.returncode:
                print(done.stderr)
                return 1
            found = json.loads(done.stdout.strip().splitlines()[-1])
            tests = subprocess.run(
                [
                    str(python),
                    "-m",
                    "pytest",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    *(f"tests/test_finetune_{name}.py" for name in TESTS),
                ],
                check=False,
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            row = "".join(f"{found[name]:>20.1e}" for name in LIMITS)
            print(f"{found['transformers']:<14}{row}  {tests.stdout.strip().splitlines()[-1]}", flush=True)
            failed += bool(tests.returncode) or any(found[name] > limit for name, limit in LIMITS.items())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
