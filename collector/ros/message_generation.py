"""From ``.msg`` text to C and C++ sources with the rosidl generators: the child process of message_builder.

Runs as ``python -m collector.ros.message_generation PACKAGE DEFINITIONS SHARE WORK`` because the generators print, read
AMENT_PREFIX_PATH and are single-threaded: a child per package keeps all of that out of the caller and uses every core.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# The two implementations rclpy may ask for: FastDDS between processes, introspection for tools and other middlewares.
IMPLEMENTATIONS = ["rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c"]
# A field whose type names another package: `std_msgs/Header header`.
_FOREIGN_TYPE = re.compile(r"^\s*([a-z]\w*)/\w+", re.MULTILINE)


def dependencies(package_folder: Path, share: Path) -> list[str]:
    """Packages the messages of a package are made of, their own dependencies included, sorted.

    Args:
        package_folder: folder with ``msg/*.msg``.
        share: the ROS installation's share folder.
    """
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
    """Write the sources of one package to ``work/gen/<package>`` and ``work/gen_introspection/<package>``."""
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
    GenerateCTypesupport("c_typesupport", typesupport_implementations=IMPLEMENTATIONS).generate(*what, sources)
    GenerateFastRTPSCTypesupport("fastrtps").generate(*what, sources)
    # Its own tree: it writes detail/*__type_support.c, a name the C generator has taken already.
    GenerateIntrospectionCTypesupport("introspection").generate(*what, work / "gen_introspection" / package)


if __name__ == "__main__":
    generate(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
