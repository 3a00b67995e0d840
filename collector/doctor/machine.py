"""The doctor's look at the machine, without ROS: disk, network settings, model folders, the policy's Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collector.common.errors import MonoError, pip_install
from collector.common.model_files import find_model, weights_defect
from collector.common.start import LEAVE_WORKING_FOLDER
from collector.common.text_files import read_json
from collector.doctor.facts import DiskFacts, Row
from collector.ros.transport import without_our_libraries

_IMPORT_S = 90.0  # torch takes a second from a warm disk and a minute from a cold one

MODEL_FILES, ADAPTER_FILES = ("config.json", "tokenizer.json"), ("adapter_config.json",)
MODEL_WEIGHTS, ADAPTER_WEIGHTS = "model.safetensors", "adapter_model.safetensors"
_MODEL_PACKAGES = ("transformers", "safetensors", "tokenizers", "PIL", "numpy", "yaml")
# Only torch is really imported: it is the one that breaks (a missing CUDA library), and peft alone takes ten seconds.
_PROBE = """
import importlib.util, json, sys
missing = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
found = {"missing": missing, "torch": "", "cuda": False, "error": ""}
if sys.version_info < (3, 10):
    found["error"] = "Python " + sys.version.split()[0] + " is older than 3.10"
try:
    import torch
    found.update(torch=torch.__version__, cuda=torch.cuda.is_available())
except Exception as error:
    found["error"] = found["error"] or f"import torch: {error}"
print(json.dumps(found))
"""


def look_at_disk(folder: Path, is_new: bool) -> DiskFacts:
    """Free space where a folder is, or would be made; ``is_new`` when the run insists on making it."""
    place = folder.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    writable = os.access(place, os.W_OK | os.X_OK)
    return DiskFacts(folder, place, shutil.disk_usage(place).free, writable, is_new and folder.exists())


def look_at_files(model: Path | None, adapter: Path | None) -> list[Row]:
    """Rows on the folders that a driver is to load, of those that are given."""
    rows = []
    if model is not None:
        folder = find_model(model)
        # The released repositories hold no tokenizer: it is their backbone's.
        files = MODEL_FILES if folder == model else MODEL_FILES[:1]
        rows.append(look_at_folder("model", folder, files, MODEL_WEIGHTS))
    if adapter is not None:
        rows.append(look_at_folder("adapter", adapter, ADAPTER_FILES, ADAPTER_WEIGHTS))
    return rows


def look_at_folder(name: str, folder: Path, files: Sequence[str], weights: str) -> Row:
    """Whether a model or adapter folder has its files and complete weights, without loading them.

    ``weights`` is a safetensors file, or the shards its ``.index.json`` names.
    """
    if defect := _folder_defect(folder, files, weights):
        return Row(name, "failed", f"{folder}: {defect}", f"check --{name}, or fetch it again")
    return Row(name, "ok", f"{folder}: its files are complete")


def _folder_defect(folder: Path, files: Sequence[str], weights: str) -> str:
    if not folder.is_dir():
        return "there is no such folder"
    if absent := [file for file in files if not (folder / file).is_file()]:
        return f"no {', '.join(absent)}"
    index, shards = folder / f"{weights}.index.json", [weights]
    if index.is_file():
        try:
            shards = sorted(set(read_json(index, "fetch it again")["weight_map"].values()))
        except (MonoError, KeyError, AttributeError, TypeError):
            return f"{index.name} cannot be read"
    return next((defect for shard in shards if (defect := weights_defect(folder / str(shard)))), "")


def look_at_python(python: str, with_adapter: bool, device: str) -> Row:
    """Ask the policy's interpreter (empty: this one) for torch and its companions, as the driver would start it.

    With an adapter it will need peft, and on some devices CUDA.
    """
    same = not python or Path(python).absolute() == Path(sys.executable).absolute()
    command, environment = [sys.executable], dict(os.environ)
    packages = (*_MODEL_PACKAGES, "peft") if with_adapter else _MODEL_PACKAGES
    if not same:
        # As the driver does: another interpreter must see nothing of this one's packages.
        environment = without_our_libraries(environment)
        environment.pop("LD_LIBRARY_PATH", None)
        command = [python, "-E"]
    found: dict[str, Any] = {}
    try:
        done = subprocess.run(
            [*command, "-c", LEAVE_WORKING_FOLDER + _PROBE, *packages],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_IMPORT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        found = json.loads(done.stdout.strip().splitlines()[-1])
        error = str(found["error"] or ("" if found["torch"] else "no torch"))
    except subprocess.TimeoutExpired:
        error = f"import torch took longer than {_IMPORT_S:.0f} s"
    except OSError as failure:
        error = f"it cannot be started: {failure.strerror}"
    except (ValueError, IndexError, KeyError, TypeError):
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        error = f"it ended with exit code {done.returncode}: {last}"
    name, place = "policy python", command[0]
    cure = f"{place} -m {pip_install('model')}; or name another interpreter: --policy-python"
    if error:
        return Row(name, "failed", f"{place}: {error}", cure)
    if found["missing"]:
        return Row(name, "failed", f"{place} lacks {', '.join(found['missing'])}", cure)
    if device.startswith("cuda") and not found["cuda"]:
        cure = "check nvidia-smi and torch's build, or --device cpu"
        return Row(name, "failed", f"{place}: torch {found['torch']} sees no CUDA device", cure)
    return Row(name, "ok", f"{place}: torch {found['torch']}")
