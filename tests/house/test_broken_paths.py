"""Every path argument of every verb, with every kind of broken path, and every output folder with a second process.

One sentence, at once, and nothing touched.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import shutil
import tempfile
import time
import typing
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from closed_loop.cli import VERBS, main
from collector.common.files import PATH_TEXTS
from collector.dataset.physical_ai import REPOSITORY
from finetune import TINY_BASE
from tests.helpers.broken_paths import KINDS, broken_path, unprivileged
from tests.helpers.driven_samples import make_stretches, write_dataset
from tests.helpers.other_process import held_elsewhere

# What no look-up gets through: said by the same sentence, whatever the argument is.
UNREACHABLE = ("loop", "through", "long", "deep", "zero", "behind", "private")
PATIENCE_S = 20.0  # at once, on a machine that is busy and imports torch first
NODES = ("record", "drive", "simulate", "doctor")
CALL = re.compile(r'command_line\((\w+), argv, "alpamayo-mono ([\w-]+)"\)')


def path_arguments() -> Iterator[tuple[str, str]]:
    """Verb and name of every setting that holds a path, found where each verb reads its words."""
    for verb in VERBS.values():
        module = importlib.import_module(verb.target.partition(":")[0])
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        (name,) = [name for name, of in CALL.findall(source) if of == verb.name]
        config = getattr(module, name)
        hints = typing.get_type_hints(config)
        for field in dataclasses.fields(config):
            if "pathlib.Path" in str(hints[field.name]).replace("<class '", "") or (
                field.name in PATH_TEXTS and hints[field.name] is str
            ):
                yield verb.name, field.name


def required(verb: str) -> set[str]:
    """Path arguments without which a verb does not start."""
    given = {
        "build": "bags out",
        "build-physical-ai": "data out",
        "calibrate": "bag out",
        "identify": "bag out",
        "recover": "bags",
        "view": "dataset",
        "measure": "drives",
        "report": "run",
        "merge": "model adapter out",
        "compare": "model out",
        "serve": "model",
        "action-range": "dataset out",
        "demo": "out",
        "pairs": "out",
        "dagger": "adapter out",
    }
    return set(given.get(verb, "" if verb in NODES else "model dataset out").split())


def words(verb: str, name: str, path: str, valid: dict[str, str]) -> list[str]:
    """The command line with everything it needs, one path of it broken."""
    given = {other: valid[other] for other in required(verb)} | {name: path}
    if (verb, name) == ("dagger", "bags"):
        del given["adapter"]  # either drives here, or was recorded
    flags: list[str] = []
    positional: list[str] = []
    for other, value in given.items():
        if (verb, other) in POSITIONAL:
            positional.append(value)
        else:
            flags += [f"--{other}", value]
    flags += {
        ("evaluate", "data"): ["--clip", "a-clip"],
        ("build-physical-ai", "out"): ["--clips", "a-clip"],
        ("dagger", "bags"): ["--courses", "city"],
    }.get((verb, name), [])
    return [verb, *positional, *flags]


POSITIONAL = {
    ("view", "dataset"),
    ("measure", "drives"),
    ("recover", "bags"),
    ("calibrate", "bag"),
    ("identify", "bag"),
    ("action-range", "dataset"),
}


@pytest.fixture(scope="module")
def dataset() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp())  # pytest's own folder keeps others out
    root.chmod(0o777)
    samples = [*make_stretches(3, 2, "train"), *make_stretches(3, 2, "val", "other")]
    yield write_dataset(root / "set", samples)
    shutil.rmtree(root)


def test_the_walk_finds_the_arguments() -> None:
    found = {*path_arguments()}
    assert {("build", "bags"), ("finetune", "model"), ("merge", "out"), ("record", "out"), ("view", "out")} <= found
    assert len({verb for verb, _ in found}) == len(VERBS) - 1, "all but messages take a path"
    assert {(verb, name) for verb, _ in found for name in required(verb)} <= found


def trials() -> Iterator[tuple[str, str, str]]:
    """Every argument with every kind, but for those that are no fault of the words."""
    for verb, name in path_arguments():
        for kind in KINDS:
            if kind not in UNREACHABLE:
                if verb in NODES or (verb == "report" and name not in ("run", "out")):
                    continue  # said by the node; a part of the report that is missing is a line on its page
                if name == "out" and kind == "dangling":
                    continue  # a link that leads to a new place
            if (verb, name, kind) == ("serve", "token_file", "file"):
                continue  # whatever its first line says is a token
            yield verb, name, kind


@pytest.mark.parametrize(("verb", "name", "kind"), sorted(trials()))
def test_a_broken_path_gets_one_sentence(
    verb: str, name: str, kind: str, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if VERBS[verb].extra == "model":
        pytest.importorskip("torch")
    with broken_path(kind) as path:
        result = dataset.with_name("result")
        valid = dict.fromkeys(("bags", "bag", "data", "adapter", "drives"), "absent")
        valid |= {"model": str(TINY_BASE), "dataset": str(dataset), "out": str(result), "run": str(dataset)}
        with unprivileged() if kind in ("behind", "private") else nullcontext():
            code = main(words(verb, name, str(path), valid))
        said = capsys.readouterr().err.strip()
        assert code == 2 and said.startswith(f"alpamayo-mono {verb}: "), said
        assert len(said.splitlines()) == 1, said
        if kind in UNREACHABLE:
            assert str(path).replace("\0", r"\x00")[:80] in said, said
        if kind == "file":
            assert path.read_text() == "somebody's"
        assert not result.exists()


PAGES = ("view", "report")  # whose output is a file
WRITERS = sorted({verb for verb, name in path_arguments() if name == "out"} - {*PAGES, "doctor"})


@pytest.mark.parametrize("verb", WRITERS)
def test_a_folder_that_another_process_writes_to_is_refused(
    verb: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rclpy" if verb in NODES else "torch" if VERBS[verb].extra == "model" else "numpy")
    valid = dict.fromkeys(("bags", "bag", "data", "adapter", "drives"), "absent")
    valid |= {"model": str(TINY_BASE), "dataset": str(dataset), "out": ""}
    if verb == "build-physical-ai":
        repository = f"datasets--{REPOSITORY.replace('/', '--')}"
        (tmp_path / "data" / repository / "snapshots" / "0").mkdir(parents=True)
        valid["data"] = str(tmp_path / "data")
    with held_elsewhere(tmp_path / "out") as pid:
        began_s = time.monotonic()
        assert main(words(verb, "out", str(tmp_path / "out"), valid)) == 2
        said = capsys.readouterr().err.strip()
        assert f"is being written by process {pid} (" in said and len(said.splitlines()) == 1, said
        assert not list((tmp_path / "out").iterdir()) and time.monotonic() - began_s < PATIENCE_S


def test_the_walk_finds_the_writers() -> None:
    assert {"build", "finetune", "record", "drive", "demo", "compare", "evaluate", "merge", "sweep"} <= {*WRITERS}
