"""Build importable ROS 2 message packages from ``.msg`` text with gcc alone: no cmake, no colcon, no Autoware.

The rosidl generators come with rclpy (the PyPI wheels, or a sourced ROS from Jazzy on). The result lies in a cache
folder per Python, rosidl version and definitions; a folder that exists is complete, since it is built beside its place
and moved there in one step.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collector.common.errors import MonoError, install_ros
from collector.common.files import PROJECT_ROOT, with_home
from collector.common.start import module_command
from collector.ros.ownership import only_ours

DEFINITIONS = PROJECT_ROOT / "collector" / "msg"  # as the Challenge has them
OTHER_FAMILY = DEFINITIONS / "autoware"  # built only where somebody speaks it
# Raise it when the way of building changes, so that caches of older versions are not used.
BUILDER_VERSION = 1

# A package's libraries, in the order in which they are linked.
_KINDS = (
    *("rosidl_generator_c", "rosidl_generator_py"),
    *("rosidl_typesupport_introspection_c", "rosidl_typesupport_fastrtps_c"),
)
# The two implementations rclpy may ask for: FastDDS between processes, introspection for tools and other middlewares.
_IMPLEMENTATIONS = ["rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c"]
# A field whose type names another package: `std_msgs/Header header`.
_FOREIGN_TYPE = re.compile(r"^\s*([a-z]\w*)/\w+", re.MULTILINE)
_INSTALL_COMPILER = "sudo apt install g++ python3-dev"


def package_names(definitions: Path = DEFINITIONS) -> tuple[str, ...]:
    """The packages whose text lies under ``definitions`` as ``<package>/msg/*.msg``."""
    return tuple(sorted(path.parent.name for path in definitions.glob("*/msg") if any(path.glob("*.msg"))))


def cache_root() -> Path:
    """``$XDG_CACHE_HOME/alpamayo_mono`` or ``~/.cache/alpamayo_mono``."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else with_home("~/.cache")) / "alpamayo_mono"


def messages_folder(definitions: Path = DEFINITIONS) -> Path:
    """Where the packages of ``definitions`` are, or would be, built for this Python and this ROS.

    Raises:
        MonoError: no rosidl generators in this Python.
    """
    rosidl = _rosidl_version()
    # The extensions hold numpy's C interface, which changes with its major version.
    numpy_major = importlib.metadata.version("numpy").split(".")[0]
    digest = hashlib.sha256(f"builder {BUILDER_VERSION} numpy {numpy_major}".encode())
    for path in sorted(definitions.glob("*/msg/*.msg")):
        digest.update(f"\0{path.relative_to(definitions)}\0".encode() + path.read_bytes())
    soabi = sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag
    return cache_root() / "messages" / f"{soabi}-rosidl{rosidl}-{digest.hexdigest()[:12]}"


def build_messages(
    definitions: Path = DEFINITIONS, *, rebuild: bool = False, say: Callable[[str], None] = lambda _: None
) -> Path:
    """The folder with the built packages, to be put on ``sys.path``; builds it when it is not there yet.

    Processes that come here at once wait for the first one to build. ``say`` receives one line before the (10 to 30 s
    long) build starts.

    Raises:
        MonoError: generators, compiler or headers are missing, the cache cannot be written, a step failed, or somebody
            else could have written what is there.
    """
    target = messages_folder(definitions)
    if target.is_dir() and not rebuild:
        return only_ours(target, cache_root())
    toolchain = find_toolchain()
    with _locked(target):
        if target.is_dir() and not rebuild:
            return only_ours(target, cache_root())
        say(f"building {len(package_names(definitions))} ROS message packages once into {target} ...")
        with tempfile.TemporaryDirectory(prefix="building-", dir=target.parent) as scratch:
            work, built = Path(scratch), Path(scratch) / "built"
            _build_into(built, definitions, toolchain, work)
            if target.is_dir():
                target.rename(work / "old")
            built.rename(target)
    return only_ours(target, cache_root())


@dataclass(frozen=True)
class Toolchain:
    """What a build needs: root of the ROS installation, C and C++ compilers, ``-I`` for Python, numpy and ROS."""

    prefix: Path
    cc: str
    cxx: str
    includes: tuple[str, ...]


def find_toolchain() -> Toolchain:
    """Find generators, compilers and headers, or say what to install (MonoError)."""
    prefix = _ros_prefix()
    compilers = []
    for variable, default in (("CC", "gcc"), ("CXX", "g++")):
        command = os.environ.get(variable) or default
        path = shutil.which(command)
        if path is None:
            found = f"the compiler {command!r} is not on the PATH"
            raise MonoError(found, "gcc and g++, to build ROS messages once", _INSTALL_COMPILER)
        compilers.append(path)
    python_headers = Path(sysconfig.get_path("include"))
    if not (python_headers / "Python.h").is_file():
        raise MonoError(f"no Python.h in {python_headers}", "the headers of this Python", _INSTALL_COMPILER)
    folders = [python_headers, Path(np.get_include()), prefix / "include"]
    # ROS headers lie one package folder deeper: include/<package>/<package>/x.h.
    folders += sorted(path for path in (prefix / "include").iterdir() if path.is_dir())
    return Toolchain(prefix, compilers[0], compilers[1], tuple(f"-I{folder}" for folder in folders))


def _build_into(built: Path, definitions: Path, toolchain: Toolchain, work: Path) -> None:
    packages = package_names(definitions)
    share = toolchain.prefix / "share"
    needs = {package: dependencies(definitions / package, share) for package in packages}
    for package in packages:
        if missing := [name for name in needs[package] if not (share / name).is_dir()]:
            raise MonoError(f"{package} needs {', '.join(missing)}, not found in {share}", "installed", install_ros())
    project = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "AMENT_PREFIX_PATH": str(toolchain.prefix), "PYTHONPATH": project}
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def run_all(commands: Iterable[Sequence[str]]) -> None:
            list(pool.map(lambda command: _run(command, environment), commands))

        child = module_command("collector.ros.message_builder")
        run_all([*child, package, *map(str, (definitions, share, work))] for package in packages)
        units = {package: _units(package, work) for package in packages}
        run_all(_compile(unit, toolchain, work) for package in packages for unit in units[package])
        # The libraries of a package are linked one after the other, since each needs the first.
        links = [_links(name, units[name], needs[name], toolchain, built / name) for name in packages]
        for commands in zip(*links, strict=True):
            run_all(commands)
    for package in packages:
        (built / package / "__init__.py").touch()
        (built / package / "msg").mkdir()
        for module in (work / "gen" / package / "msg").glob("*.py"):
            shutil.copy(module, built / package / "msg")


def dependencies(package_folder: Path, share: Path) -> list[str]:
    """Packages the messages (``msg/*.msg``) of a package are made of, their own dependencies included, sorted."""
    found: set[str] = set()
    folders = [package_folder]
    while folders:
        for definition in folders.pop().glob("msg/*.msg"):
            for name in _FOREIGN_TYPE.findall(definition.read_text(encoding="utf-8")):
                if name not in found and name != package_folder.name:
                    found.add(name)
                    folders.append(share / name)
    return sorted(found)


def generate(package: str, definitions: Path, share: Path, work: Path) -> None:
    """Write the sources of one package to ``work/gen/<package>`` and ``work/gen_introspection/<package>``.

    In a child process per package, since the generators print, read AMENT_PREFIX_PATH and are single-threaded.
    """
    from rosidl_adapter.msg import convert_msg_to_idl
    from rosidl_generator_c.cli import GenerateC
    from rosidl_generator_py.cli import GeneratePython
    from rosidl_generator_type_description.cli import HashTypeDescription
    from rosidl_typesupport_c.cli import GenerateCTypesupport
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport
    from rosidl_typesupport_introspection_c.cli import GenerateIntrospectionCTypesupport

    package_folder = definitions / package
    idl_folder, sources = work / "idl" / package, work / "gen" / package
    interfaces = []
    for definition in sorted(package_folder.glob("msg/*.msg")):
        convert_msg_to_idl(package_folder, package, definition.relative_to(package_folder), idl_folder / "msg")
        interfaces.append(f"{idl_folder}:msg/{definition.stem}.idl")
    includes = [str(share / name) for name in dependencies(package_folder, share)]

    what = package, interfaces, includes
    hashes = HashTypeDescription("hash").generate_type_hashes(*what, idl_folder)
    GenerateC("c").generate(*what, sources, type_description_files=[str(path) for path in hashes])
    GeneratePython("py", typesupport_implementations=["rosidl_typesupport_c"]).generate(*what, sources)
    GenerateCTypesupport("c_typesupport", typesupport_implementations=_IMPLEMENTATIONS).generate(*what, sources)
    GenerateFastRTPSCTypesupport("fastrtps").generate(*what, sources)
    # Its own tree: it writes detail/*__type_support.c, a name the C generator has taken already.
    GenerateIntrospectionCTypesupport("introspection").generate(*what, work / "gen_introspection" / package)


def _units(package: str, work: Path) -> list[Path]:
    trees = (work / "gen" / package, work / "gen_introspection" / package)
    return sorted(path for tree in trees for pattern in ("*.c", "*.cpp") for path in tree.rglob(pattern))


def _compile(unit: Path, toolchain: Toolchain, work: Path) -> list[str]:
    compiler = [toolchain.cxx, "-std=c++17"] if unit.suffix == ".cpp" else [toolchain.cc, "-std=gnu11"]
    own = [f"-I{work / 'gen'}", f"-I{work / 'gen_introspection'}"]
    # -w: warnings in generated code tell our users nothing.
    options = ["-O1", "-fPIC", "-w", "-DNDEBUG", *own, *toolchain.includes]
    return [*compiler, *options, "-c", str(unit), "-o", f"{unit}.o"]


def _links(
    package: str, units: Sequence[Path], needs: Sequence[str], toolchain: Toolchain, folder: Path
) -> list[list[str]]:
    """The commands that link, in this order, the four libraries of a package and the extension rclpy imports."""
    folder.mkdir(parents=True)
    own, lib = f"-l{package}__rosidl_generator_c", toolchain.prefix / "lib"
    introspection = [unit for unit in units if "gen_introspection" in unit.parts]
    generated = [unit for unit in units if "gen_introspection" not in unit.parts]
    extension = [unit for unit in units if unit.name.endswith("__type_support.cpp") or ".ep." in unit.name]
    fastrtps = ["-lrosidl_typesupport_fastrtps_c", "-lrosidl_typesupport_fastrtps_cpp", "-lrmw"]
    # Loading the extension must load all four, for rosidl_typesupport_c then finds them by soname.
    others = [f"-l{package}__{kind}" for kind in _KINDS[:0:-1]]
    all_four = ["-Wl,--no-as-needed", *others, own, "-lrosidl_typesupport_c"]
    typesupport = [unit for unit in units if unit.name.endswith("__type_support_c.cpp")]
    # Some installations carry only libfastcdr.so.N, which a plain -lfastcdr does not find.
    cdr = sorted(lib.glob("libfastcdr.so*"))
    parts: tuple[tuple[list[Path], list[str]], ...] = (
        ([unit for unit in generated if unit.parent.name == "detail" and unit.suffix == ".c"], []),
        ([unit for unit in units if unit.name.endswith("_s.c") and ".ep." not in unit.name], [own]),
        (introspection, [own, "-lrosidl_typesupport_introspection_c"]),
        (typesupport, [own, *fastrtps, f"-l:{cdr[0].name}" if cdr else "-lfastcdr"]),
        (extension, all_four),
    )
    commands = []
    for (chosen, libraries), kind in zip(parts, (*_KINDS, ""), strict=True):
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        name = f"lib{package}__{kind}.so" if kind else f"{package}_s__rosidl_typesupport_c{suffix}"
        output = ["-shared", f"-Wl,-soname,{name}", "-o", str(folder / name), *(f"{unit}.o" for unit in chosen)]
        search = [f"-L{folder}", f"-L{lib}", f"-Wl,-rpath-link,{lib}", "-Wl,-rpath,$ORIGIN"]
        of_dependencies = [f"-l{need}__{kind}" for need in needs] if kind else []
        rosidl = ["-lrosidl_runtime_c", "-lrcutils"]
        commands.append([toolchain.cxx, *output, *search, *libraries, *of_dependencies, *rosidl])
    return commands


def _run(command: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        what = Path(command[0]).name if command[0] != sys.executable else " ".join(command[2:4])
        last = " | ".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        found = f"building the ROS messages failed in {what} (exit code {done.returncode}): {last}"
        do = f"{_INSTALL_COMPILER}; then run: alpamayo-mono messages --rebuild"
        raise MonoError(found, "a compiler and ROS headers that fit together", do)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One builder at a time. The kernel drops the lock with its process, so none is left behind."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not through a link, and nothing is truncated: somebody else may have put what lies there.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        lock = os.fdopen(os.open(target.parent / f"{target.name}.lock", flags, 0o666), "rb")
    except OSError as error:
        found = f"the cache {target.parent} cannot be written ({error.strerror})"
        raise MonoError(found, "a folder of yours", "set XDG_CACHE_HOME to a folder you may write to") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ros_prefix() -> Path:
    spec = importlib.util.find_spec("rosidl_adapter")
    if spec is None or spec.origin is None:
        raise MonoError("no rosidl generators in this Python", "a ROS 2 with rosidl", install_ros())
    for folder in Path(spec.origin).parents:
        if (folder / "share" / "rosidl_adapter").is_dir():
            return folder
    raise MonoError(f"{spec.origin} belongs to no ROS installation (no share/rosidl_adapter above)", "", install_ros())


def _rosidl_version() -> str:
    # Type hashes came with Iron; Humble's generators have none, and there the packages come with Autoware.
    for module in ("rosidl_adapter", "rosidl_generator_type_description"):
        if importlib.util.find_spec(module) is None:
            found = f"the Python module {module} is missing"
            raise MonoError(found, "the rosidl generators of Jazzy or later", install_ros())
    try:
        return importlib.metadata.version("rosidl_generator_c")
    except importlib.metadata.PackageNotFoundError:
        return os.environ.get("ROS_DISTRO", "unknown")


if __name__ == "__main__":
    generate(sys.argv[1], *map(Path, sys.argv[2:]))
