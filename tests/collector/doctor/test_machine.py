"""What the doctor finds on this very machine: disks, model folders, interpreters, and a Python without ROS."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from collector.common.errors import pip_install
from collector.common.model_files import find_model, weights_defect
from collector.doctor.facts import Row
from collector.doctor.machine import (
    ADAPTER_FILES,
    ADAPTER_WEIGHTS,
    MODEL_FILES,
    MODEL_WEIGHTS,
    look_at_disk,
    look_at_folder,
    look_at_python,
)
from finetune import TINY_BASE
from tests.helpers.paths import ROOT


def test_disk_is_looked_at_where_the_folder_will_be(tmp_path: Path) -> None:
    facts = look_at_disk(tmp_path / "a" / "b", is_new=True)
    assert (facts.place, facts.writable, facts.taken) == (tmp_path, True, False)
    assert facts.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert look_at_disk(tmp_path, is_new=True).taken and not look_at_disk(tmp_path, is_new=False).taken
    (tmp_path / "file").write_text("")
    assert look_at_disk(tmp_path / "file" / "below", is_new=True).place == tmp_path


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert not look_at_disk(tmp_path / "bag", is_new=True).writable


def defect_of(row: Row, folder: Path) -> str:
    """What a folder's row says is wrong with it, empty for a good one."""
    if row.state == "ok":
        assert row.found == f"{folder}: its files are complete" and not row.cure
        return ""
    assert row.state == "failed" and row.cure == f"check --{row.name}, or fetch it again"
    return row.found.removeprefix(f"{folder}: ")


def look_at_model(folder: Path) -> str:
    return defect_of(look_at_folder("model", folder, MODEL_FILES, MODEL_WEIGHTS), folder)


def test_the_shipped_model_is_complete_and_a_broken_one_is_not(tmp_path: Path) -> None:
    assert look_at_model(TINY_BASE) == ""
    copy = tmp_path / "model"
    shutil.copytree(TINY_BASE, copy)
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    assert "10 bytes are missing" in look_at_model(copy)
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "not the beginning of a safetensors file" in look_at_model(copy)
    weights.unlink()
    assert look_at_model(copy) == "no model.safetensors"
    (copy / "part-1.safetensors").write_bytes(whole)
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}))
    assert look_at_model(copy) == "no part-2.safetensors"
    (copy / "part-2.safetensors").write_bytes(whole)
    assert look_at_model(copy) == ""
    index.write_text("{")
    assert "cannot be read" in look_at_model(copy)
    (copy / "tokenizer.json").unlink()
    assert look_at_model(copy) == "no tokenizer.json"
    assert look_at_model(tmp_path / "nowhere") == "there is no such folder"


def test_an_id_of_the_hub_is_looked_for_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    name = Path("nvidia/Alpamayo-R1-10B")
    assert find_model(name) == name and find_model(TINY_BASE) == TINY_BASE
    place = tmp_path / "models--nvidia--Alpamayo-R1-10B"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc\n")
    shutil.copytree(TINY_BASE, place / "snapshots" / "abc")
    assert find_model(name) == place / "snapshots" / "abc" and look_at_model(find_model(name)) == ""


def test_an_adapter_folder(tmp_path: Path) -> None:
    def defect() -> str:
        return defect_of(look_at_folder("adapter", tmp_path, ADAPTER_FILES, ADAPTER_WEIGHTS), tmp_path)

    assert defect() == "no adapter_config.json"
    (tmp_path / "adapter_config.json").write_text("{}")
    assert defect() == "no adapter_model.safetensors"
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert defect() == ""


@pytest.mark.parametrize("header", [b"[]", b"{x}", b'{"x": {}}', b'{"x": {"data_offsets": [0, 1]}}'])
def test_what_is_no_safetensors_file(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "damaged" in weights_defect(tmp_path / "w")
    (tmp_path / "w").write_bytes(b"")
    assert "damaged" in weights_defect(tmp_path / "w")


def test_interpreters_are_really_asked(tmp_path: Path) -> None:
    fake = interpreter(tmp_path, "echo 'no such option' >&2\nexit 3")
    row = look_at_python(fake, False, "cpu")
    assert (row.state, row.found) == ("failed", f"{fake}: it ended with exit code 3: no such option")
    assert pip_install("model") in row.cure and "--policy-python" in row.cure
    assert "cannot be started" in look_at_python(str(tmp_path / "nothing"), False, "cpu").found
    # A virtual environment of its own has none of our packages, however ours are found.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True, timeout=60)
    bare = look_at_python(str(tmp_path / "bare" / "bin" / "python"), True, "cpu")
    assert bare.state == "failed" and "No module named 'torch'" in bare.found


def interpreter(folder: Path, script: str) -> str:
    """A program that answers in place of a Python."""
    fake = folder / "python"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    return str(fake)


def test_missing_packages_and_cuda_are_named(tmp_path: Path) -> None:
    def told(device: str, **answer: object) -> tuple[str, str]:
        said = {"missing": [], "torch": "2.8", "cuda": False, "error": ""} | answer
        row = look_at_python(interpreter(tmp_path, f"echo '{json.dumps(said)}'"), True, device)
        return row.state, row.found.removeprefix(str(tmp_path))

    assert told("cpu") == ("ok", "/python: torch 2.8") == told("cuda:0", cuda=True)
    assert told("cuda:1") == ("failed", "/python: torch 2.8 sees no CUDA device")
    assert told("cpu", missing=["peft", "PIL"]) == ("failed", "/python lacks peft, PIL")
    assert told("cpu", torch="") == ("failed", "/python: no torch")


def test_the_running_interpreter_has_the_model_packages() -> None:
    if not all(importlib.util.find_spec(name) for name in ("torch", "transformers", "peft")):
        pytest.skip("the extra [model] is not installed")
    row = look_at_python("", True, "cpu")
    assert (row.state, row.found) == ("ok", f"{sys.executable}: torch {importlib.metadata.version('torch')}")


def test_without_ros_the_other_rows_are_still_there(tmp_path: Path) -> None:
    words = ["--json", "--out", str(tmp_path / "bag"), "--minutes", "1"]
    code = (
        f"import sys\nsys.modules['rclpy'] = None\nfrom collector.doctor.command import main\nsys.exit(main({words!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert set(rows) == {"ROS 2", "disk"} and rows["disk"]["state"] == "ok"
    assert "rclpy" in rows["ROS 2"]["found"]
    assert "source /opt/ros" in rows["ROS 2"]["cure"] and pip_install("ros") in rows["ROS 2"]["cure"]
