"""``--model``: folders, ids of the hub from its local cache, fingerprints, and what is no model."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("huggingface_hub")

from safetensors.numpy import load_file, save_file

from collector.common.errors import MonoError
from finetune.model_files.location import base_fingerprint, model_name, resolve_model
from finetune.model_files.weight_files import read_header, stored_tensors
from tests.helpers.paths import ROOT, TINY

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, repository: str, source: Path) -> Path:
    """A repository as the hub's client keeps it: blobs, a snapshot of links to them, and a reference."""
    place = cache / ("models--" + repository.replace("/", "--"))
    snapshot = place / "snapshots" / COMMIT
    for folder in (place / "blobs", place / "refs", snapshot):
        folder.mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted(source.iterdir())):
        blob = place / "blobs" / f"{number:040x}"
        shutil.copyfile(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def offline(words: list[str], cache: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process that may not use the network; the client reads these variables when imported."""
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.update(extra)
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150, check=False
    )


def resolve_offline(name: str, cache: Path, **extra: str) -> str:
    code = (
        "import sys\nfrom collector.common.errors import MonoError\nfrom finetune.model_files.location import *\n"
        "try:\n    found = resolve_model(sys.argv[1])\n    print(found, model_name(found))\n"
        "except MonoError as error:\n    print('MonoError:', error)"
    )
    done = offline(["-c", code, name], cache, **extra)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert resolve_model(TINY) == TINY and resolve_model(str(TINY)) == TINY
    assert model_name(TINY) == "tiny"
    with pytest.raises(MonoError, match="no folder"):
        resolve_model(tmp_path / "none")
    with pytest.raises(MonoError, match="is a file"):
        resolve_model(TINY / "config.json")
    with pytest.raises(MonoError, match="no folder"):
        resolve_model("just-a-word")


def test_an_id_is_found_in_the_local_cache(tmp_path: Path) -> None:
    snapshot = cached(tmp_path, "nvidia/Alpamayo-R1-10B", TINY)
    assert resolve_offline("nvidia/Alpamayo-R1-10B", tmp_path) == f"{snapshot} nvidia/Alpamayo-R1-10B"
    assert base_fingerprint(snapshot) == base_fingerprint(TINY)


def test_an_id_out_of_reach_is_one_sentence_with_the_cure(tmp_path: Path) -> None:
    said = resolve_offline("nvidia/Alpamayo-R1-10B", tmp_path)
    assert said.startswith("MonoError: there is no folder nvidia/Alpamayo-R1-10B")
    assert "local cache" in said and "hf download nvidia/Alpamayo-R1-10B" in said and "\n" not in said


def test_a_verb_takes_an_id(tmp_path: Path) -> None:
    """Through the command line as typed: the id must pass as a path, and the adapter's error shows it was loaded."""
    pytest.importorskip("torch")
    cached(tmp_path / "hub", "nvidia/Alpamayo-R1-10B", TINY)
    words = [
        "-m",
        "closed_loop.cli",
        "merge",
        "--model",
        "nvidia/Alpamayo-R1-10B",
        "--adapter",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
    ]
    done = offline(words, tmp_path / "hub")
    assert done.returncode == 2 and "holds no adapter" in done.stderr, done.stderr


def test_the_tokenizer_of_a_released_folder_is_its_backbone_s(tmp_path: Path) -> None:
    """The released folders hold none; the open backbone's serves for the one that wants a login."""
    source = tmp_path / "qwen"
    source.mkdir()
    shutil.copyfile(TINY / "tokenizer.json", source / "tokenizer.json")
    snapshot = cached(tmp_path / "hub", "Qwen/Qwen3-VL-8B-Instruct", source)
    code = (
        "import sys\nfrom pathlib import Path\nfrom collector.common.errors import MonoError\n"
        "from finetune.model_files.location import tokenizer_file\n"
        "try:\n    print(tokenizer_file(Path(sys.argv[1]), sys.argv[2]))\n"
        "except MonoError as error:\n    print('MonoError:', error)"
    )
    (tmp_path / "bare").mkdir()

    def found(folder: Path, backbone: str, cache: str) -> str:
        return offline(["-c", code, str(folder), backbone], tmp_path / cache).stdout.strip()

    assert found(TINY, "Qwen/Qwen3-VL-8B-Instruct", "hub") == str(TINY / "tokenizer.json")
    for backbone in ("Qwen/Qwen3-VL-8B-Instruct", "nvidia/Cosmos-Reason2-8B"):
        assert found(tmp_path / "bare", backbone, "hub") == str(snapshot / "tokenizer.json")
    said = found(tmp_path / "bare", "Qwen/Qwen3-VL-8B-Instruct", "empty")
    assert said.startswith("MonoError: no tokenizer.json") and "hf download Qwen/Qwen3-VL-8B-Instruct" in said
    assert "put the backbone's tokenizer.json there" in found(tmp_path / "bare", "someone/else", "hub")


@pytest.mark.parametrize(
    ("status", "code", "cures"),
    [
        (403, "GatedRepo", ("accept them at https://huggingface.co/nvidia/None", "hf auth login")),
        (401, "RepoNotFound", ("shows no model of that name", "hf auth login")),
        (418, "", ("the hub cannot be reached", "hf download nvidia/None")),
    ],
)
def test_refusals_of_the_hub_say_what_to_do(status: int, code: str, cures: tuple[str, ...], tmp_path: Path) -> None:
    """The real client against a server on this machine that refuses as the hub does."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
        said = resolve_offline("nvidia/None", tmp_path, **address)
        server.shutdown()
    assert said.startswith("MonoError: ") and "nvidia/None" in said and "\n" not in said
    assert all(cure in said for cure in cures), said


def test_the_fingerprint_knows_the_weights_and_not_their_wrapping(tmp_path: Path) -> None:
    first = base_fingerprint(TINY)
    moved = Path(shutil.copytree(TINY, tmp_path / "another-name"))
    raw = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**raw, "transformers_version": "9"}, indent=7))
    tensors = load_file(moved / "model.safetensors")
    names = sorted(tensors)
    for file, part in (("a.safetensors", names[::2]), ("b.safetensors", names[1::2])):
        save_file({name: tensors[name] for name in part}, moved / file)
    index = {name: "ab"[number % 2] + ".safetensors" for number, name in enumerate(names)}
    (moved / "model.safetensors").unlink()
    (moved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert base_fingerprint(moved) == first

    changed = tensors["expert.layers.1.mlp.up_proj.weight"]
    changed[0, 0] += 1.0
    save_file({name: tensors[name] for name in names[::2]}, moved / "a.safetensors")
    save_file({name: tensors[name] for name in names[1::2]}, moved / "b.safetensors")
    assert base_fingerprint(moved) != first
    changed[0, 0] -= 1.0
    save_file({name: tensors[name] for name in names[::2]}, moved / "a.safetensors")
    save_file({name: tensors[name] for name in names[1::2]}, moved / "b.safetensors")
    raw["action_space_cfg"]["accel_std"] = 1.0
    (moved / "config.json").write_text(json.dumps(raw))
    assert base_fingerprint(moved) != first


def test_headers_are_those_of_the_library() -> None:
    ours, theirs = stored_tensors(TINY), load_file(TINY / "model.safetensors")
    assert set(ours) == set(theirs)
    assert all(ours[name].read().tobytes() == theirs[name].tobytes() for name in theirs)
    assert all(ours[name].shape == theirs[name].shape for name in theirs)


def test_what_is_no_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from finetune.checkpoint import load_model

    def folder(name: str) -> Path:
        return Path(shutil.copytree(TINY, tmp_path / name))

    def complaint(place: Path) -> str:
        with pytest.raises(MonoError) as caught:
            load_model(place)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "config.json" in complaint(tmp_path)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert "is an adapter" in complaint(adapter) and "--adapter" in complaint(adapter)
    stage_1 = folder("stage-1")
    (stage_1 / "config.json").write_text('{"model_type": "alpamayo_reasoning_vla"}')
    assert "stage-1" in complaint(stage_1) and "action expert" in complaint(stage_1)
    foreign = folder("foreign")
    (foreign / "config.json").write_text('{"model_type": "qwen3_vl"}')
    assert "qwen3_vl" in complaint(foreign)
    pickled = folder("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "pytorch_model.bin, which can run code" in complaint(pickled)
    short = folder("short")
    content = (short / "model.safetensors").read_bytes()
    (short / "model.safetensors").write_bytes(content[:-1000])
    assert "1000 bytes are missing" in complaint(short)
    (short / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "damaged" in complaint(short)
    (short / "config.json").write_text("[1, 2")
    assert "not JSON" in complaint(short)


def test_whatever_a_header_holds_is_read_or_refused_and_never_a_traceback(tmp_path: Path) -> None:
    draw, path = random.Random(4), tmp_path / "w.safetensors"
    save_file({"a": np.arange(4, dtype=np.float32), "b": np.zeros((2, 2), np.float32)}, path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    refused = 0
    for _ in range(400):
        text = bytearray(whole[8 : 8 + length])
        for _ in range(draw.randint(1, 3)):
            text[draw.randrange(length)] = draw.choice(b'0123456789-[]{}",:eFabn ')
        path.write_bytes(whole[:8] + text + whole[8 + length :])
        try:
            tensors = read_header(path)
        except MonoError:
            refused += 1
        else:
            assert all(len(tensor.read()) == tensor.size for tensor in tensors.values())
    assert 100 < refused < 400
