"""The policy process: serves one node, the one that started it, and ends with it.

Started by :class:`closed_loop.serving.child.PolicyProcess` as a module, with any Python that has torch. Nothing of ROS
is imported here. The first line of its input names the policy, its options and the token; the end of its input is the
end of the node. What it says on its output are lines of JSON: the port, and why there is no policy.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress

from closed_loop.serving.loading import build_policy
from closed_loop.serving.metadata import metadata_of
from closed_loop.serving.server import PolicyServer
from closed_loop.serving.settings import PolicySpec
from collector.common.cpu import share_cores
from collector.common.errors import EXIT_USAGE, MonoError
from collector.common.files import sentence_of

_PR_SET_PDEATHSIG = 1  # of prctl(2)


def end_with_parent() -> None:
    """Let the system kill this process, and any that it forks, when the one that started it is gone.

    The closed input says so too, but a process that is stopped, or hangs in a library, would never read it.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def main() -> int:
    """Serve the process that started this one."""
    share_cores()
    # Libraries print: keep the pipe for the two lines, and send everything printed to stderr.
    sink = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    first = json.loads(line)
    end_with_parent()
    os.register_at_fork(after_in_child=end_with_parent)
    if os.getppid() != first["parent"]:
        return 0
    threading.Thread(target=_wait_for_the_end, daemon=True).start()
    spec = PolicySpec(first["policy"], first["options"])
    try:
        listener = socket.create_server(("127.0.0.1", 0))
        policy = lambda: build_policy(spec.policy, dict(spec.options))  # noqa: E731
        server = PolicyServer(listener, policy, metadata_of(spec), first["token"], lambda _line: None)
        print(json.dumps({"port": listener.getsockname()[1]}), file=sink, flush=True)
        server.run()
    except (MonoError, OSError) as error:
        print(json.dumps({"failed": sentence_of(error)}), file=sink, flush=True)
        return EXIT_USAGE
    return 0


def _wait_for_the_end() -> None:
    with suppress(OSError, ValueError):
        while sys.stdin.buffer.read(4096):
            pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # what the policy started, too
    os._exit(0)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # a policy that hangs has a thread that no ordinary end would wait out
