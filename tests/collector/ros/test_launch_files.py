"""The launch files describe what the settings say; with a real ROS `launch` they are loaded and run too."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from closed_loop.ros.config import DRIVE_NODE, EVALUATOR_BESIDE, SIMULATE_NODE, SIMULATOR_BESIDE, DriveConfig
from closed_loop.ros.log import DriveLog
from collector.common.arguments import Arguments, arguments_of
from collector.common.errors import MonoError
from collector.common.start import module_command
from collector.ros.launch_description import check_start, describe, refuse_unknown, settings_of, typed_names
from collector.ros.parameters import RECORD_NODE, Program, RecordConfig, parameter_values
from collector.ros.session import LAUNCHER_VARIABLE
from tests.helpers.paths import ROOT

VERBS: dict[str, tuple[type[Arguments], Program]] = {
    "record.launch.py": (RecordConfig, RECORD_NODE),
    "drive.launch.py": (DriveConfig, DRIVE_NODE),
}


def has_real_launch() -> bool:
    # From the repository's root `import launch` finds our folder as an empty namespace package.
    spec = importlib.util.find_spec("launch")
    return spec is not None and spec.origin is not None and importlib.util.find_spec("launch_ros") is not None


needs_launch = pytest.mark.skipif(not has_real_launch(), reason="ROS's launch is not importable (it is not on PyPI)")


def test_nothing_shadows_launch() -> None:
    assert not (ROOT / "launch" / "__init__.py").exists()
    assert {path.name for path in (ROOT / "launch").iterdir() if path.suffix == ".py"} == set(VERBS)


@pytest.mark.parametrize("program", [RECORD_NODE, DRIVE_NODE, SIMULATE_NODE], ids=lambda program: program.name)
def test_node_modules_exist(program: Program) -> None:
    source = (ROOT / Path(*program.module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
    assert "__main__" in source, f"python -m {program.module} would do nothing"
    assert program.parameters.__name__ in source


def load(file: str) -> Any:
    spec = importlib.util.spec_from_file_location(file.replace(".", "_"), ROOT / "launch" / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of ROS's launch: each of its classes keeps what it was given."""

    def keep(*args: object, **options: object) -> SimpleNamespace:
        return SimpleNamespace(args=args, **options)

    modules = {
        "launch": {"LaunchDescription": keep},
        "launch.actions": {"DeclareLaunchArgument": keep, "OpaqueFunction": keep, "Shutdown": keep},
        "launch_ros": {},
        "launch_ros.actions": {"Node": keep},
        "launch_ros.parameter_descriptions": {"ParameterValue": keep},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    # Of the messages only that they can be had is asked, which takes a ROS.
    monkeypatch.setattr("collector.ros.launch_description.message_class", lambda _type: None)


def context_of(*words: str, file: str = "", **configurations: str) -> Any:
    """What launch tells a function of a launch file: the words of the command line, and every configuration."""
    return SimpleNamespace(
        argv=words,
        launch_configurations=configurations,
        get_locals_as_dict=lambda: {"current_launch_file_path": file} if file else {},
        is_shutdown=False,
    )


@pytest.mark.parametrize("file", sorted(VERBS))
def test_launch_file_describes_its_verb(
    file: str, written_down: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `ros2 launch ... --show-args` lists (ranges and choices included), and which node is given what."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}::/a:.:../{tmp_path.name}:below:")
    config, main = VERBS[file]
    start, *declared = load(file).generate_launch_description().args[0]
    assert len(start.function(context_of())) == (2 if config is DriveConfig else 1)
    node, *beside = start.function(context_of(simulator="true"))
    programs = (main, SIMULATOR_BESIDE, *([EVALUATOR_BESIDE] if config is DriveConfig else []))
    assert [item.args[0] for item in declared] == [each.name for each in arguments_of(config)]
    for item, each in zip(declared, arguments_of(config), strict=True):
        assert item.default_value == (
            "true" if each.default is True else "false" if each.default is False else str(each.default)
        )
        assert item.description == each.help and each.limits in item.description
        assert item.choices == (list(each.choices) or None)
    for found, program in zip((node, *beside), programs, strict=True):
        assert [found.executable, *found.arguments] == module_command(program.module)
        assert found.additional_env["PYTHONPATH"] == f"{ROOT}:/a:below", "nothing of where somebody stands"
        assert found.additional_env[LAUNCHER_VARIABLE] == str(os.getpid())
        values = {name: value.args[0] for name, value in found.parameters[0].items()}
        assert values == parameter_values(program, config())
        assert all(value.value_type is type(value.args[0]) for value in found.parameters[0].values())


@pytest.mark.parametrize("file", sorted(VERBS))
def test_one_nodes_end_is_everybodys_and_its_failure_the_launchs(file: str, written_down: None) -> None:
    start, *_ = load(file).generate_launch_description().args[0]
    for node in start.function(context_of(simulator="true")):
        context = context_of()
        (shutdown,) = node.on_exit(SimpleNamespace(returncode=0), context)
        assert "has ended" in shutdown.reason
        for code, says in ((2, "exit code 2"), (1, "exit code 1"), (-9, "SIGKILL"), (-11, "SIGSEGV"), (-2, "SIGINT")):
            with pytest.raises(MonoError, match=says):
                node.on_exit(SimpleNamespace(returncode=code), context)
        context.is_shutdown = True
        assert all(node.on_exit(SimpleNamespace(returncode=code), context) is None for code in (-15, -2, 130))
        with pytest.raises(MonoError, match="SIGKILL"):
            node.on_exit(SimpleNamespace(returncode=-9), context)


WRONG = [
    ({"simulator": "flase"}, "simulator:='flase'.*bool"),
    ({"laps": "-1"}, "laps:=-1.*0 to 1000"),
    ({"laps": "1.5"}, "laps:='1.5'.*int"),
    ({"laps": "1_0"}, "laps:='1_0'"),
    ({"laps": ""}, "laps:=''"),
    ({"max_speed_mps": "1e999"}, "max_speed_mps:=inf"),
    ({"max_speed_mps": "nan"}, "max_speed_mps:=nan"),
    ({"max_speed_mps": "fast"}, "max_speed_mps:='fast'.*float"),
    ({"cameras": "five"}, "cameras:='five'.*mono"),
    ({"out": "~nosuchuser/x"}, "no home folder"),
    ({"out": "a\0b"}, "zero|null"),
    ({"course": "nowhere"}, "course 'nowhere'"),
    ({"course": ""}, ""),
    ({"reference": "nowhere"}, "course 'nowhere'"),
    ({"courses": "city,nowhere", "simulator": "true"}, "course 'nowhere'"),
    ({"log": "/", "simulator": "on"}, "/ is a folder"),
    ({"model": "/no/where"}, "model:=/no/where is not there"),
    ({"adapter": "runs/no/adapter"}, "adapter:=runs/no/adapter"),
    ({"adapter": __file__}, "is no folder"),
    ({"calibration": "/no.yaml"}, "/no.yaml"),
    ({"policy": "my.module"}, "policy:=my.module.*module:Class"),
    ({"policy_python": "/no/python"}, "policy_python:=/no/python"),
]


@pytest.mark.parametrize(("texts", "says"), WRONG, ids=[str(next(iter(texts.items()))) for texts, _ in WRONG])
def test_a_wrong_value_is_refused_before_any_process_starts(
    texts: dict[str, str], says: str, written_down: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start, *_ = load("drive.launch.py").generate_launch_description().args[0]
    if not says:
        start.function(context_of(**texts))
        return
    with pytest.raises(MonoError, match=says):
        start.function(context_of(**texts))
    assert not list(tmp_path.iterdir())


def test_values_that_are_spelt_otherwise_are_read(tmp_path: Path) -> None:
    texts = {"simulator": "True", "laps": "3", "max_speed_mps": "5", "reasoning": "off", "out": "2026", "else": "x"}
    expected = DriveConfig(simulator=True, laps=3, max_speed_mps=5.0, reasoning=False, out="2026")
    assert settings_of(DriveConfig, texts) == expected


def test_a_misspelt_name_is_refused_with_the_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_unknown(["adapter", "laps", "launch-prefix"], DriveConfig)
    for name, near in (("adpater", "'adapter'"), ("Laps", "'laps'"), ("teacher", "'expert'"), ("jpeg_quality", "")):
        with pytest.raises(MonoError, match=f"no argument '{name}'.*{near}"):
            refuse_unknown([name], DriveConfig)
    # Only of the launch file that was named are the words known to be meant for it.
    context = context_of("adpater:=x", "word", file="/somewhere/launch/drive.launch.py")
    monkeypatch.setattr(sys, "argv", ["/opt/ros/bin/ros2", "launch", "closed_loop", "drive.launch.py", "adpater:=x"])
    assert typed_names(context) == ["adpater"]
    monkeypatch.setattr(sys, "argv", ["/opt/ros/bin/ros2", "launch", "team", "reference.launch.xml", "adpater:=x"])
    assert typed_names(context) == []
    assert typed_names(context_of("adpater:=x")) == []


def test_an_output_folder_that_never_saw_a_plan_is_taken_again(tmp_path: Path, written_down: None) -> None:
    out = tmp_path / "drive"
    settings = DriveConfig(out=str(out))
    log = DriveLog(out)
    with pytest.raises(MonoError, match="being written"):
        check_start([DRIVE_NODE], settings)
    log.finish({})
    check_start([DRIVE_NODE], settings)
    (out / "plans.jsonl").write_text("{}\n")
    with pytest.raises(MonoError, match="already holds a drive"):
        check_start([DRIVE_NODE], settings)
    (out / "plans.jsonl").write_text("")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(MonoError, match=r"notes\.txt|already holds"):
        check_start([DRIVE_NODE], settings)


def test_recording_is_described_without_the_packages_above_it() -> None:
    program = (
        "import sys, collector.ros.parameters as parameters; parameters.RecordConfig()\n"
        "print(sorted({'closed_loop', 'finetune', 'tyro', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert "import closed_loop" not in (ROOT / "launch/record.launch.py").read_text().replace("from ", "import ")


@needs_launch
@pytest.mark.parametrize("file", sorted(VERBS))
def test_real_launch_loads_the_file(file: str) -> None:
    arguments = arguments_of(VERBS[file][0])
    declared = {item.name: item for item in load(file).generate_launch_description().get_launch_arguments()}
    assert list(declared) == [each.name for each in arguments]
    for each in arguments:
        assert "".join(part.text for part in declared[each.name].default_value) == each.default_text


@needs_launch
def test_real_launch_keeps_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait_s:=5` must reach the node as 5.0 and `out:=2026` as a text; the node's end must end the launch."""
    import yaml
    from launch import LaunchDescription, LaunchService
    from launch.actions import SetLaunchConfiguration

    node = tmp_path / "spy_node.py"
    node.write_text(
        "import pathlib, shutil, sys\n"
        "source = sys.argv[sys.argv.index('--params-file') + 1]\n"
        f"name = 'simulator' if 'episode_s' in open(source).read() else 'main'\n"
        f"shutil.copy(source, pathlib.Path({str(tmp_path)!r}) / (name + '.yaml'))\n"
        "import time; time.sleep(60 if name == 'simulator' else 3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    spies = [replace(each, module="spy_node") for each in (RECORD_NODE, SIMULATOR_BESIDE)]
    typed = {"wait_s": "5", "out": "2026", "simulator": "true", "duration_s": "7", "expert": "false"}
    service = LaunchService()
    settings = [SetLaunchConfiguration(*item) for item in typed.items()]
    description = describe(RecordConfig, *spies)
    service.include_launch_description(LaunchDescription([*settings, description]))
    assert service.run() == 0

    def parameters(name: str) -> dict[str, object]:
        content = yaml.safe_load((tmp_path / f"{name}.yaml").read_text())
        return next(iter(content.values()))["ros__parameters"]

    config = RecordConfig(wait_s=5.0, out="2026", duration_s=7.0, expert=False)
    assert parameters("main") == parameter_values(RECORD_NODE, config)
    assert type(parameters("main")["wait_s"]) is float
    assert parameters("simulator") == parameter_values(SIMULATOR_BESIDE, config)
