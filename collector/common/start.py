"""What comes before all else in a process of ours: which folders Python looks into for modules, and how Ctrl-C ends.

``python -m`` puts the working folder in front of all libraries, and so does an empty entry of ``PYTHONPATH``: a file
``cv2.py`` lying there would be run by every command. As a script, ``python start.py MODULE ...`` runs one of our
modules as ``python -m MODULE ...`` does, without that folder. Standard library only, and of that only what Python has
loaded by itself until the folder is gone.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_ROOT = os.path.realpath(f"{__file__}/../../..")  # what holds the three packages
MAX_PIXELS = 2**26  # of a picture: no camera has more; what claims more is damaged or meant to harm
EXIT_INTERRUPTED = 130
_COMMAND = "alpamayo-mono"  # the installed script
_LIBRARIES = ("site-packages", "dist-packages", "lib-dynload")
# In front of what is run by `python -c`, which looks into the working folder too.
LEAVE_WORKING_FOLDER = (
    "import os, sys; sys.path[:] = [each for each in sys.path if each and os.path.abspath(each) != os.getcwd()]\n"
)


def module_command(module: str, python: str = sys.executable, *options: str) -> list[str]:
    """The command line that runs one of our modules in a process of its own, with these options of Python."""
    return [python, *options, os.path.realpath(__file__), module]


def leave_working_folder() -> None:
    """Take the working folder off ``sys.path``, unless ``PYTHONPATH`` names it in full.

    A source tree goes behind the libraries, so that what else lies in it is none; unless these hold another copy of
    this project, which would then be mixed with it.
    """
    here = _here()
    named = [os.path.normpath(each) for each in _entries() if os.path.isabs(each)]
    own = os.path.dirname(os.__file__)  # of the standard library
    before = [*sys.path]
    sys.path[:] = [each for each in before if each in (own, *named) or each not in ("", here)]
    import sysconfig  # this line is the first that could have found a file there

    standard = {*sysconfig.get_paths().values(), _ROOT, *named}
    sys.path[:] = [each for each in before if each in standard or _is_library(each) or each not in ("", here)]
    if _ROOT not in sys.path or _is_library(_ROOT):
        return
    libraries = [index for index, each in enumerate(sys.path) if _is_library(each)]
    # Asked of os.path: a folder that keeps us out, as a root's library does others, is then none.
    if libraries and not any(os.path.isdir(f"{sys.path[index]}/collector") for index in libraries):
        sys.path[:] = [
            *(each for each in sys.path[: libraries[-1] + 1] if each != _ROOT),
            _ROOT,
            *(each for each in sys.path[libraries[-1] + 1 :] if each != _ROOT),
        ]


def without_working_folder() -> dict[str, str]:
    """The variables with which no Python that inherits them looks into the working folder, not even at its start.

    Entries of ``PYTHONPATH`` that lead there go, if they do not name it in full. ``PYTHONSAFEPATH``, since Python 3.11,
    is for what libraries start by ``python -c`` or ``python -m``.
    """
    here = _here()
    kept = [each for each in _entries() if each and (os.path.isabs(each) or os.path.abspath(each) != here)]
    return {"PYTHONSAFEPATH": "1"} | ({"PYTHONPATH": os.pathsep.join(kept)} if "PYTHONPATH" in os.environ else {})


def _entries() -> list[str]:
    return os.environ.get("PYTHONPATH", "").split(os.pathsep)


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""


def _is_library(folder: str) -> bool:
    return os.path.basename(folder) in _LIBRARIES


def begin() -> None:
    """What our packages do when they are imported, before any library is.

    In a process of ours, :func:`leave_working_folder`, for its children too, and Ctrl-C ends without a traceback; a
    program that imports this project keeps its own path. And OpenCV, if it is not there yet, is told to refuse pictures
    of more than 67 million pixels: a file of 1 MB can hold one that takes gigabytes.
    """
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    if sys.argv[:1] == ["-m"] or os.path.basename(sys.argv[0] if sys.argv else "") == _COMMAND:
        _take_process()


def _take_process() -> None:
    sys.excepthook = _end
    leave_working_folder()
    os.environ.update(without_working_folder())


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C before a command could answer it, or after it; everything else is shown as usual."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(EXIT_INTERRUPTED)  # nothing is left to be done: Python would now end itself by the signal


if __name__ == "__main__":
    # Python has put this file's own folder there, if it was not told to be safe. Another Python than ours must not see
    # our libraries.
    if os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(__file__)):
        del sys.path[0]
    sys.path[:0] = [] if _is_library(_ROOT) else [_ROOT]
    _take_process()
    del sys.argv[0]

    import runpy

    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
