"""The launch files and the table of arguments agree; with a real ROS `launch` the files are loaded and run too."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from collector.ros.launching import launch_text
from collector.ros.parameters import ARGUMENTS, MAIN_NODE, NODE_MODULES, arguments_of, parameter_values, parameters_of
from tests.helpers.paths import ROOT

VERBS = {"record.launch.py": "record", "drive.launch.py": "drive"}


def has_real_launch() -> bool:
    # From the repository's root `import launch` finds our folder as an empty namespace package.
    spec = importlib.util.find_spec("launch")
    return spec is not None and spec.origin is not None and importlib.util.find_spec("launch_ros") is not None


needs_launch = pytest.mark.skipif(not has_real_launch(), reason="ROS's launch is not importable (it is not on PyPI)")


def test_nothing_shadows_launch() -> None:
    assert not (ROOT / "launch" / "__init__.py").exists()
    assert {path.name for path in (ROOT / "launch").iterdir() if path.suffix == ".py"} == set(VERBS)


@pytest.mark.parametrize("file", sorted(VERBS))
def test_launch_file_describes_its_verb(file: str) -> None:
    tree = ast.parse((ROOT / "launch" / file).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert [function.name for function in functions] == ["generate_launch_description"]
    calls = [node for node in ast.walk(functions[0]) if isinstance(node, ast.Call)]
    assert [(ast.unparse(call.func), ast.literal_eval(call.args[0])) for call in calls] == [("describe", VERBS[file])]


def test_node_modules_exist() -> None:
    assert set(MAIN_NODE.values()) <= set(NODE_MODULES)
    for module in NODE_MODULES.values():
        source = (ROOT / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
        assert "__main__" in source, f"python -m {module} would do nothing"


@pytest.mark.parametrize("verb", sorted(MAIN_NODE))
def test_every_parameter_of_a_started_node_is_an_argument(verb: Any) -> None:
    names = {argument.name for argument in arguments_of(verb)}
    for node in {MAIN_NODE[verb], "simulator"}:
        # The node declares all of its parameters; what a verb does not offer keeps the table's default there.
        given = parameter_values(verb, node, {})  # type: ignore[arg-type]
        declared = {argument.name for argument in parameters_of(node)}  # type: ignore[arg-type]
        assert set(given) <= declared and set(given) <= names
    assert {argument.name for argument in parameters_of(MAIN_NODE[verb])} <= names


@pytest.mark.parametrize("verb", sorted(MAIN_NODE))
def test_defaults_survive_the_way_through_text(verb: Any) -> None:
    for argument in arguments_of(verb):
        default = argument.default_for(verb)
        assert type(default) is argument.type
        again = argument.parse(launch_text(argument, verb))
        assert again == default and type(again) is argument.type


def test_names_are_single_and_explained() -> None:
    names = [argument.name for argument in ARGUMENTS]
    assert len(set(names)) == len(names)
    for argument in ARGUMENTS:
        assert argument.name.isidentifier() and argument.name == argument.name.lower()
        assert len(argument.help) > 10
        assert argument.nodes or argument.verbs


def load(file: str) -> Any:
    spec = importlib.util.spec_from_file_location(file.replace(".", "_"), ROOT / "launch" / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_launch
@pytest.mark.parametrize("file", sorted(VERBS))
def test_real_launch_loads_the_file(file: str) -> None:
    verb: Any = VERBS[file]
    description = load(file).generate_launch_description()
    declared = {item.name: item for item in description.get_launch_arguments()}
    assert list(declared) == [argument.name for argument in arguments_of(verb)]
    for argument in arguments_of(verb):
        default = "".join(part.text for part in declared[argument.name].default_value)
        assert argument.parse(default) == argument.default_for(verb)


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
    monkeypatch.setattr("collector.ros.launching.NODE_MODULES", dict.fromkeys(NODE_MODULES, "spy_node"))
    typed = {"wait_s": "5", "out": "2026", "simulator": "true", "duration_s": "7", "expert": "false"}
    service = LaunchService()
    settings = [SetLaunchConfiguration(*item) for item in typed.items()]
    description = load("record.launch.py").generate_launch_description()
    service.include_launch_description(LaunchDescription([*settings, description]))
    assert service.run() == 0

    def parameters(name: str) -> dict[str, object]:
        content = yaml.safe_load((tmp_path / f"{name}.yaml").read_text())
        return next(iter(content.values()))["ros__parameters"]

    expected = parameter_values("record", "record_node", {"wait_s": 5.0, "out": "2026", "duration_s": 7.0})
    assert parameters("main") == expected
    assert type(parameters("main")["wait_s"]) is float
    assert parameters("simulator") == parameter_values("record", "simulator", {"expert": False})
