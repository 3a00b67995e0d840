"""Package alpamayo_mono, for pip and for colcon (ament_python).

One package answers to three names: ``ros2 launch collector ...`` and ``ros2 launch closed_loop ...`` resolve through
alias entries in the ament index, each with a marker, a manifest of its own name, its own launch files only, and in
``lib`` the nodes that ``ros2 run`` finds. The command goes to ``bin``, which colcon puts on the PATH as pip does.
The metadata stands here rather than in pyproject.toml because ROS 2 Humble's setuptools does not read it there.
"""

import xml.etree.ElementTree as ET
from pathlib import Path

from setuptools import find_packages, setup

NAME = "alpamayo_mono"
MANIFEST = ET.parse(Path(__file__).resolve().parent / "package.xml").getroot()
COLLECT, CLOSE_LOOP = ["record_node", "doctor"], ["drive_node", "simulator"]
RECORD, DRIVE = "launch/record.launch.py", "launch/drive.launch.py"


def share(name: str, manifest: str, launch_files: list[str], nodes: list[str]) -> list[tuple[str, list[str]]]:
    """Data files that make ``name`` a package in the eyes of ament, ``ros2 launch`` and ``ros2 run``."""
    return [
        (f"lib/{name}", [f"resource/nodes/{node}" for node in nodes]),
        ("share/ament_index/resource_index/packages", [f"resource/{name}"]),
        (f"share/{name}", [manifest]),
        (f"share/{name}/launch", launch_files),
    ]


MODEL = [
    "torch>=2.7",
    "transformers>=5.17",
    "peft>=0.18",
    "accelerate>=1.1",
    "safetensors>=0.8",
    "tokenizers",
    "pillow",
    "tensorboard",
]
EXTRAS = {
    # Only for machines without a sourced ROS 2; a metapackage of another distribution works too.
    "ros": [
        "ros-rclpy[fastrtps]",
        "ros-std-msgs",
        "ros-std-srvs",
        "ros-geometry-msgs",
        "ros-diagnostic-msgs",
        "ros-nav-msgs",
        "ros-sensor-msgs",
        "ros-rosgraph-msgs",
    ],
    "model": MODEL,
    "gpu": [*MODEL, "bitsandbytes>=0.46"],
    "report": ["matplotlib>=3.7", "jinja2"],
    # NVIDIA's own reader of its driving data; it needs Python 3.11 or newer.
    "physical-ai": ["physical_ai_av>=0.2"],
    "dev": [
        "mcap>=1.5",
        "pytest",
        "pytest-timeout",
        "pytest-xdist",
        "hypothesis",
        "datasets",
        "bitsandbytes>=0.46",
        "ruff",
        "mypy",
        "types-PyYAML",
        "types-tqdm",
        "physical_ai_av>=0.2; python_version >= '3.11'",
    ],
}

setup(
    name=NAME,
    version=MANIFEST.findtext("version"),
    description=MANIFEST.findtext("description"),
    author="alpamayo_mono maintainers",
    maintainer="alpamayo_mono maintainers",
    maintainer_email="alpamayo_mono@example.org",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["collector*", "finetune*", "closed_loop*"], exclude=["launch*", "tests*"]),
    package_data={
        "collector": ["msg/*/msg/*.msg", "msg/*/*/msg/*.msg", "bags/*.json", "dataset/templates/*", "ros/*.xml"],
        "finetune": ["tiny_base/*", "tiny_steered/*", "adapters/*.md"],
        "closed_loop": ["report/templates/*"],
    },
    data_files=[
        *share(NAME, "package.xml", [RECORD, DRIVE], [*COLLECT, *CLOSE_LOOP, "alpamayo-mono"]),
        *share("collector", "resource/manifests/collector/package.xml", [RECORD], COLLECT),
        *share("closed_loop", "resource/manifests/closed_loop/package.xml", [DRIVE], CLOSE_LOOP),
    ],
    # No upper bounds. colcon installs none of these: the nodes, doctor and measure run with what package.xml brings.
    install_requires=[
        "setuptools",
        "numpy>=1.24",
        "opencv-python-headless>=4.5.4.60",
        "pydantic>=2.5",
        "tqdm",
        "rosbags>=0.10.2",
        "pyyaml",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["alpamayo-mono = closed_loop.cli:main"]},
    zip_safe=False,
)
