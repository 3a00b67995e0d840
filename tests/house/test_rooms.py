"""The tree: which room may import which, no circles, rooms of a readable size, tests that mirror the rooms."""

from __future__ import annotations

import ast
import functools
import graphlib
from collections.abc import Iterator, Mapping

import pytest

from tests.helpers.paths import ROOT

MOST_MODULES = 15
# From the bottom up: a package imports those above it in this list, a room the rooms above it. What lies in a package
# beside its rooms is named as a room of its own where rooms import it; the rest lies above them all.
ROOMS = {
    "collector": [
        "common",
        "geometry",
        "reasoning",
        "ros",
        "bags",
        "pose_tracks",
        "recording",
        "vehicle",
        "calibration",
        "dataset",
        "doctor",
    ],
    "finetune": [
        "policy",
        "alpamayo",
        "model_files",
        "processing",
        "adapters",
        "checkpoint",
        "engine",
        "alpamayo_policy",
        "training",
        "lora_finetune",
        "evaluation",
        "studies",
    ],
    "closed_loop": ["course", "control", "simulator", "pairs", "comparison", "dagger", "serving", "ros", "report"],
}

# What a package's own `__init__` may import from above it: it has to come before every library.
FIRST = [("collector", "collector.common.start")]

Sources = Mapping[str, str]  # path from the root -> text


def read_sources(*folders: str) -> dict[str, str]:
    files = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files}


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def imports_of(source: str) -> tuple[str, ...]:
    """Every name imported anywhere, in function bodies too; "." for a relative import, which hides its direction."""
    return tuple(_imports(source))


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" if not node.level else "." for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


def module_imports(sources: Sources) -> dict[str, set[str]]:
    """Which of these modules each one imports; a package without a module of the name counts as itself."""
    modules = {module_of(path) for path in sources}
    graph: dict[str, set[str]] = {}
    for path, source in sources.items():
        graph[module_of(path)] = set()
        for name in imports_of(source):
            found = name if name in modules else name.rpartition(".")[0]
            if found in modules and found != module_of(path):
                graph[module_of(path)].add(found)
    return graph


def rank(module: str) -> tuple[int, int]:
    """Package, and room within it; what no list names lies above the rooms, a package's own ``__init__`` below."""
    package, _, rest = module.partition(".")
    rooms = ROOMS[package]
    room = rest.partition(".")[0]
    return list(ROOMS).index(package), rooms.index(room) if room in rooms else -1 if not room else len(rooms)


def wrong_directions(sources: Sources) -> list[str]:
    wrong = [
        f"{module} -> {other}"
        for module, others in module_imports(sources).items()
        for other in others
        if rank(other) > rank(module) and (module, other) not in FIRST
    ]
    for path, source in sources.items():
        wrong += [f"{path} -> {name}" for name in imports_of(source) if name == "." or name.startswith("tests")]
    return sorted(wrong)


def circle(sources: Sources) -> list[str]:
    """A circle of files, empty when there is none."""
    try:
        graphlib.TopologicalSorter(module_imports(sources)).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def crowded(sources: Sources) -> dict[str, int]:
    """Rooms with too many modules."""
    counts: dict[str, int] = {}
    for path in sources:
        folder, _, name = path.rpartition("/")
        counts[folder] = counts.get(folder, 0) + (name != "__init__.py")
    return {folder: count for folder, count in counts.items() if count > MOST_MODULES}


def strays(tests: Sources, packages: Sources) -> list[str]:
    """Tests in a folder that mirrors no room, and helpers imported from elsewhere than ``tests.helpers``."""
    rooms = {path.rpartition("/")[0] for path in packages} | {"benchmarks", "house", "helpers", ""}
    wrong = []
    for path, source in tests.items():
        folder = path.removeprefix("tests/").rpartition("/")[0]
        if folder not in rooms:
            wrong.append(f"{path}: no room {folder}")
        names = {name for name in imports_of(source) if name == "." or name.startswith(("tests.", "conftest"))}
        wrong += [f"{path} -> {name}" for name in names if not name.startswith("tests.helpers")]
    return sorted(wrong)


PACKAGES = read_sources(*ROOMS)
TESTS = read_sources("tests")


def test_imports_run_one_way() -> None:
    assert len(PACKAGES) > 150, "the walk found too little to prove anything"
    assert not wrong_directions(PACKAGES)


def test_every_room_has_its_place_in_the_order() -> None:
    for package, order in ROOMS.items():
        rooms = {path.split("/")[1] for path in PACKAGES if path.startswith(f"{package}/") and path.count("/") > 1}
        modules = {path.split("/")[1].removesuffix(".py") for path in PACKAGES if path.startswith(f"{package}/")}
        assert rooms <= set(order) <= modules


def test_no_circle_of_files() -> None:
    assert not circle(PACKAGES)


def test_rooms_are_small() -> None:
    assert not crowded(PACKAGES)


def test_tests_mirror_the_rooms() -> None:
    assert not strays(TESTS, PACKAGES)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("collector/bags/planted.py", "from finetune.policy import Plan"),
        ("collector/bags/planted.py", "def late():\n    import closed_loop.cli"),
        ("collector/geometry/planted.py", "from collector.bags import reader"),
        ("finetune/adapters/planted.py", "__import__('finetune.lora_finetune')"),
        (
            "closed_loop/control/planted.py",
            "from importlib import import_module\nimport_module('closed_loop.launcher')",
        ),
        ("closed_loop/control/planted.py", "from . import driver"),
        ("closed_loop/control/planted.py", "from tests.helpers.paths import ROOT"),
    ],
)
def test_a_planted_wrong_direction_is_found(path: str, source: str) -> None:
    assert len(wrong_directions({**PACKAGES, path: source})) == len(wrong_directions(PACKAGES)) + 1


def test_other_planted_faults_are_found() -> None:
    one, other = "def late():\n    from collector.bags.b import x", "import collector.bags.a"
    assert circle({"collector/bags/a.py": one, "collector/bags/b.py": other})
    assert crowded({f"collector/bags/m{n}.py": "" for n in range(16)}) == {"collector/bags": 16}
    assert not crowded({f"collector/bags/m{n}.py": "" for n in range(15)} | {"collector/bags/__init__.py": ""})
    assert strays({"tests/collector/cellar/test_x.py": ""}, PACKAGES)
    assert strays({"tests/collector/bags/test_x.py": "from tests.house.test_rooms import rank"}, PACKAGES)
    assert not strays({"tests/collector/bags/test_x.py": "from tests.helpers.paths import ROOT"}, PACKAGES)
