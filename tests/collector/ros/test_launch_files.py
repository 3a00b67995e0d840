"""The launch files describe what the settings say; with a real ROS `launch` they are loaded and run too."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from closed_loop.ros.config import DRIVE_NODE, EVALUATOR_BESIDE, SIMULATE_NODE, SIMULATOR_BESIDE, DriveConfig
from collector.common.arguments import Arguments, arguments_of
from collector.common.start import module_command
from collector.ros.parameters import RECORD_NODE, Program, RecordConfig, describe, parameter_values
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
        "launch.actions": {"DeclareLaunchArgument": keep, "Shutdown": keep},
        "launch.conditions": {"IfCondition": lambda on: on.args[0]},
        "launch.substitutions": {"LaunchConfiguration": keep},
        "launch_ros": {},
        "launch_ros.actions": {"Node": keep},
        "launch_ros.parameter_descriptions": {"ParameterValue": keep},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("file", sorted(VERBS))
def test_launch_file_describes_its_verb(
    file: str, written_down: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `ros2 launch ... --show-args` lists (ranges and choices included), and which node is given what."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}::/a:.:../{tmp_path.name}:below:")
    config, main = VERBS[file]
    described = load(file).generate_launch_description().args[0]
    declared, (node, *beside) = described[: len(arguments_of(config))], described[len(arguments_of(config)) :]
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
        types = {name: value.value_type for name, value in found.parameters[0].items()}
        assert types == {name: type(value) for name, value in parameter_values(program, config()).items()}
    assert [each.condition for each in beside] == ["simulator", "evaluator"][: len(beside)]
    assert "has ended" in node.on_exit.reason


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
