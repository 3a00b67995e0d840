"""What merging costs at released widths: seconds and peak memory, beside copying the folder and beside PEFT's own way.

    python benchmarks/benchmark_merge.py [--layers 4] [--place FOLDER]

Random bfloat16 weights at the released sizes with fewer layers (36 are the whole, 22 GB; 4 are 6 GB, deleted at
once). Each measurement is a process of its own. PEFT merges a model in memory; its peak is the floor of every way that
loads the model first.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
_GIB = 1 << 30


def write_base(folder: Path, layers: int) -> None:
    """A checkpoint at the released widths; its tensors are written one after the other."""
    import numpy as np
    import torch

    from benchmarks.tiny_base.new_model import official_config
    from finetune.alpamayo.configuration import RELEASED_BACKBONES, AlpamayoConfig
    from finetune.alpamayo.model import AlpamayoR1
    from finetune.model_files.weight_files import WEIGHTS_FILE, write_weights

    config = AlpamayoConfig()
    text = {**config.vlm["text_config"], "num_hidden_layers": layers}
    config = replace(config, vlm={**config.vlm, "text_config": text})
    with torch.device("meta"):
        state = AlpamayoR1(config).state_dict()
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    # Values between 2**-6 and 2**-5: no NaN among random bits.
    block = (0x3C80 + random.integers(0, 128, 1 << 20)).astype("<u2")

    def contents() -> Any:
        for tensor in state.values():
            yield np.resize(block, tensor.numel()).view(np.uint8)

    write_weights(folder / WEIGHTS_FILE, [(name, "BF16", tuple(t.shape)) for name, t in state.items()], contents())
    raw = {**official_config(config), "vlm_name_or_path": RELEASED_BACKBONES[0]}
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "vlm_config.json").write_text(json.dumps(config.vlm))


def write_adapter(folder: Path, base: Path) -> None:
    """An adapter of rank 16 on both halves, saved as finetune saves it."""
    import torch

    from finetune.adapters.lora import LoraSettings, add_lora, save_adapter
    from finetune.alpamayo.model import AlpamayoR1
    from finetune.model_files.configuration_files import read_config

    with torch.device("meta"):
        model = AlpamayoR1(read_config(base))
        adapted = add_lora(model, LoraSettings(train_projections=False))
    for module in model.modules():
        for half in ("lora_A", "lora_B"):
            for layer in getattr(module, half, {}).values():
                layer.weight = torch.nn.Parameter(0.01 * torch.randn(layer.weight.shape))
    save_adapter(adapted, folder, base, "mono")


def merge_here(base: Path, adapter: Path, out: Path) -> None:
    from finetune.adapters.merge import MergeConfig, merge

    merge(MergeConfig(base, adapter, out))


def merge_with_peft(base: Path, adapter: Path, out: Path) -> None:
    import peft
    import torch
    from safetensors.torch import load_file, save_file

    from finetune.alpamayo.model import AlpamayoR1
    from finetune.model_files.configuration_files import read_config

    with torch.device("meta"):
        model = AlpamayoR1(read_config(base))
    model.load_state_dict(load_file(base / "model.safetensors"), assign=True, strict=False)
    merged = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    out.mkdir()
    save_file(dict(merged.state_dict()), str(out / "model.safetensors"))


def copy(base: Path, adapter: Path, out: Path) -> None:
    shutil.copytree(base, out)


WAYS = {"copy": copy, "merge": merge_here, "peft": merge_with_peft}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--place", type=Path, default=None)
    parser.add_argument("--way", choices=sorted(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--folders", type=Path, nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way:
        began = time.perf_counter()
        WAYS[chosen.way](*chosen.folders)
        # The kernel's own count of this program: getrusage still remembers the process that started it.
        status = Path("/proc/self/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024**2
        print(json.dumps({"seconds": time.perf_counter() - began, "peak_gib": peak}))
        return
    with tempfile.TemporaryDirectory(dir=chosen.place) as scratch:
        base, adapter = Path(scratch) / "base", Path(scratch) / "adapter"
        write_base(base, chosen.layers)
        write_adapter(adapter, base)
        size = (base / "model.safetensors").stat().st_size / _GIB
        print(f"{chosen.layers} layers, {size:.2f} GiB of weights")
        for way in ("copy", "merge", "peft"):
            out = Path(scratch) / way
            done = subprocess.run(
                [sys.executable, __file__, "--way", way, "--folders", str(base), str(adapter), str(out)],
                check=False,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                print(f"{way:<6} failed: {done.stderr.strip().splitlines()[-1]}")
                continue
            found = json.loads(done.stdout.strip().splitlines()[-1])
            print(f"{way:<6} {found['seconds']:7.1f} s   peak {found['peak_gib']:6.2f} GiB", flush=True)
            shutil.rmtree(out)


if __name__ == "__main__":
    main()
