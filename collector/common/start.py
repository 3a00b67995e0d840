"""Which folders Python looks into for modules: never the one a person happens to stand in.

``python -m`` puts the working folder in front of all libraries, and so does an empty entry of ``PYTHONPATH``: a file
``cv2.py`` lying there would be run by every command. As a script, ``python start.py MODULE ...`` runs one of our
modules as ``python -m MODULE ...`` does, without that folder. Standard library only, for it comes before all else.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])  # what holds the three packages
MAX_PIXELS = 2**26  # of a picture: no camera has more; what claims more is damaged or meant to harm
_LIBRARIES = ("site-packages", "dist-packages", "lib-dynload")
# In front of what is run by `python -c`, which looks into the working folder too.
LEAVE_WORKING_FOLDER = (
    "import os, sys; sys.path[:] = [each for each in sys.path if each and os.path.abspath(each) != os.getcwd()]\n"
)


def module_command(module: str, python: str = sys.executable, *options: str) -> list[str]:
    """The command line that runs one of our modules in a process of its own, with these options of Python."""
    return [python, *options, str(Path(__file__).resolve()), module]


def leave_working_folder() -> None:
    """Take the working folder off ``sys.path``, unless ``PYTHONPATH`` names it in full.

    A source tree goes behind the libraries, so that what else lies in it is none; unless these hold another copy of
    this project, which would then be mixed with it.
    """
    try:
        here = str(Path.cwd())
    except OSError:  # it was deleted
        here = ""
    named = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(each).is_absolute()]
    standard = {*sysconfig.get_paths().values(), _ROOT, *map(os.path.normpath, named)}
    sys.path[:] = [each for each in sys.path if each in standard or _is_library(each) or each not in ("", here)]
    if _ROOT not in sys.path or _is_library(_ROOT):
        return
    libraries = [index for index, each in enumerate(sys.path) if _is_library(each)]
    # Path.is_dir raises where a folder keeps us out, which a root's library does for others.
    if libraries and not any(os.path.isdir(f"{sys.path[index]}/collector") for index in libraries):  # noqa: PTH112
        sys.path[:] = [
            *(each for each in sys.path[: libraries[-1] + 1] if each != _ROOT),
            _ROOT,
            *(each for each in sys.path[libraries[-1] + 1 :] if each != _ROOT),
        ]


def _is_library(folder: str) -> bool:
    return Path(folder).name in _LIBRARIES


def begin() -> None:
    """What our packages do when they are imported, before any library is.

    Where ``python -m`` is looking for one of our modules, :func:`leave_working_folder`; a program that imports this
    project keeps its own path. And OpenCV, if it is not there yet, is told to refuse pictures of more than 67 million
    pixels: a file of 1 MB can hold one that takes gigabytes.
    """
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    if sys.argv[:1] == ["-m"]:
        leave_working_folder()


if __name__ == "__main__":
    import runpy

    # Python has put this file's own folder there. Another Python than ours must not see our libraries.
    sys.path[:1] = [] if _is_library(_ROOT) else [_ROOT]
    leave_working_folder()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
