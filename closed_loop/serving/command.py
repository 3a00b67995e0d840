"""Verb ``serve``: the policy as a server, for a node or any client of openpi's protocol, here or on another machine."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from dataclasses import dataclass

from closed_loop.serving.loading import build_policy
from closed_loop.serving.metadata import description, metadata_of
from closed_loop.serving.server import PolicyServer
from closed_loop.serving.settings import TOKEN_VARIABLE, PolicyParameters, read_token
from collector.common.arguments import argument
from collector.common.command_line import command_line
from collector.common.cpu import plan_in_one_thread
from collector.common.errors import MonoError
from collector.ros.session import signals_to


@dataclass(frozen=True)
class ServeConfig(PolicyParameters):
    """Serve a policy to nodes and other clients, here or on another machine.

    Speaks openpi's websocket protocol; GET /healthz answers 200 when the model is loaded. Examples:

    alpamayo-mono serve --adapter runs/lora/adapter --port 8000

    alpamayo-mono serve --model nvidia/Alpamayo-R1-10B --device cuda --host 0.0.0.0 --token-file token.txt
    """

    port: int = argument(8000, "TCP port; 0 takes one that is free and prints it", 0, 65535)
    host: str = argument(
        "127.0.0.1", "address to listen on; all but loopback need a token (0.0.0.0 is every one of IPv4)"
    )
    token: str = argument(
        "",
        f"what clients must send as Authorization: Api-Key TOKEN; others see it in ps, so rather by {TOKEN_VARIABLE}",
    )
    token_file: str = argument("", "text file with the token in its first line")


def main(argv: list[str]) -> int:
    """Verb ``serve``: 0 when a signal ended it."""
    config = command_line(ServeConfig, argv, "alpamayo-mono serve")
    config.check_folders()
    plan_in_one_thread(os.environ)
    token = read_token(config.token_file, config.token)
    if not token and not _is_loopback(config.host):
        found = f"--host {config.host} without a token: whoever reaches this machine could use the policy"
        do = f"give --token-file, or set {TOKEN_VARIABLE}; or leave --host out, and reach it through ssh -L"
        raise MonoError(found, "a token, or a loopback address", do)
    spec = config.spec()
    listener = _listen(config.host, config.port)
    server = PolicyServer(listener, lambda: build_policy(spec.policy, dict(spec.options)), metadata_of(spec), token)
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host  # as policy_server wants it
    received: list[str] = []

    def end(signal_name: str) -> None:
        received.append(signal_name)
        if len(received) > 1:
            os._exit(1)  # asked twice
        server.end()

    with signals_to(end):
        print(f"serving on {host}:{port}{' with a token' if token else ''}: {description(server.metadata)}", flush=True)
        server.run()
    print(f"serve ended: {received[0] if received else 'closed'}", flush=True)
    sys.stdout.flush()
    # A policy that hangs has a thread that no ordinary end would wait out.
    os._exit(0)


def _bare(host: str) -> str:
    """An address of IPv6 without the brackets in which it stands before a port."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(_bare(host)).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens (MonoError: the address is not this machine's, or taken)."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((_bare(host), port), family=family, backlog=32)
    except (OSError, UnicodeError) as error:
        found = f"cannot listen on {host}:{port} ({getattr(error, 'strerror', None) or error})"
        raise MonoError(found, "a free port of this machine", "choose another --port or --host") from error
