"""The one command: it teaches, imports late, and answers wrong words with a sentence."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from closed_loop.cli import STAGES, VERBS, help_text, main
from closed_loop.ros.config import DriveConfig
from collector.common.arguments import arguments_of
from collector.common.errors import pip_install
from collector.ros.parameters import RecordConfig, SimulateConfig
from tests.helpers.paths import ROOT


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert output.strip() == help_text()
    for stage, verbs in STAGES.items():
        assert f"{stage}:" in output
        for verb in verbs:
            assert any(line.split()[:1] == [verb.name] and verb.help in line for line in output.splitlines())
    assert max(map(len, output.splitlines())) <= 110


def test_no_word_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "import sys; from closed_loop.cli import main; main(['--help'])\n"
                "print(sorted({'torch', 'rclpy', 'transformers', 'numpy', 'cv2', 'tyro'} & set(sys.modules)))"
            ),
        ],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_target_takes_the_words(verb: str) -> None:
    module, _, function = VERBS[verb].target.partition(":")
    tree = ast.parse((ROOT / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == (function or "main")]
    assert len(found) == 1, f"{VERBS[verb].target} does not exist"
    assert [argument.arg for argument in found[0].args.args] == ["argv"]


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    if VERBS[verb].extra == "model":
        pytest.importorskip("torch")
    try:
        code = main([verb, "--help"])
    except SystemExit as end:  # argparse and tyro leave this way
        code = int(end.code or 0)
    assert code == 0
    output = capsys.readouterr().out
    assert verb in output and len(output.splitlines()) > 5
    words = " ".join(output.replace("│", " ").split())
    assert not re.findall(r"--[\w-]+(?: [A-Z{][^ ]*)? \(default", words), "flags without help: fields without a comment"


@pytest.mark.parametrize(
    ("verb", "config"), [("record", RecordConfig), ("drive", DriveConfig), ("simulate", SimulateConfig)]
)
def test_ros_verbs_teach_their_arguments(verb: str, config: type, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert not end.value.code
    output = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"Examples: alpamayo-mono {verb} " in output
    for each in arguments_of(config):
        assert f"--{each.name.replace('_', '-')}" in output
        shown = repr("") if each.default == "" else str(each.default)
        assert f"{each.help} (default: {shown})" in output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["drvie"], "'drive', perhaps"),
        (["drive", "adaptor:=x"], "perhaps 'adapter'"),
        (["record", "--teacher", "false"], "'expert', as 'teacher' is called since"),
        (["simulate", "perturbation:=0"], "'disturbance', as 'perturbation' is called since"),
        (["drive", "simulator:=perhaps"], "true or false"),
        (["finetune", "--thought-dropout", "0.2"], "'reasoning_dropout', as 'thought_dropout' is called since"),
        (["build", "bagz:=x"], "perhaps 'bags'"),
        (["doctor", "secnds:=3"], "perhaps 'seconds'"),
        (["messages", "--rebiuld"], "perhaps 'rebuild'"),
        (["drive", "laps:=two"], "a value of type int"),
        (["drive", "--laps"], "Missing value for argument '--laps'"),
        (["record", "jpeg_quality:=400"], "1 to 100"),
        (["record", "lap1"], "name:=value or --name value"),
        (["drive", "cameras:=five"], "one of mono"),
    ],
)
def test_wrong_words_get_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.startswith(f"alpamayo-mono {words[0]}: ")
    assert len(captured.err.splitlines()) == 1 and "Traceback" not in captured.err
    assert captured.out == ""


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def no_torch(_: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("closed_loop.cli.importlib.import_module", no_torch)
    assert main(["finetune"]) == 2
    assert pip_install("model") in capsys.readouterr().err
