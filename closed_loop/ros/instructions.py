"""What an operator asks of a driving kart: on a topic while it drives, or from its start.

Words go to the driver as :mod:`collector.reasoning.instructions` understands them, and nothing else: no hold, limit or
brake is theirs. What is not understood changes nothing, and is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from closed_loop.control.driver import Driver
from closed_loop.ros.diagnostics import Finding, Level
from collector.common.errors import MonoError
from collector.reasoning.instructions import read_instruction
from collector.ros.message_packages import message_class
from collector.ros.topics import INSTRUCTION, Message, qos_profile

if TYPE_CHECKING:
    from rclpy.node import Node

_USUAL = "as usual"


@dataclass(frozen=True)
class _Standing:
    """What holds now."""

    came: str = ""
    understood: str = _USUAL
    since_s: float = 0.0  # steady clock
    refused: str = ""  # why what came last changes nothing; empty where it does


class Instructions:
    """Hears instructions where a drive was started with one; ``usual`` is one that asks for nothing yet.

    ``note`` is told what is worth a line in the log. The topic is heard in the node's executor, the rest may be called
    from another thread.

    Raises:
        MonoError: the first one is not understood.
    """

    def __init__(
        self, node: Node, first: str, driver: Driver, clock: Callable[[], float], note: Callable[[str, str], None]
    ) -> None:
        self._driver, self._steady, self._note = driver, clock, note
        self._standing = _Standing()
        self.is_heard = bool(first.strip())
        if self.is_heard:
            self._take(first)
            node.create_subscription(
                message_class(INSTRUCTION.type), INSTRUCTION.name, self.on_instruction, qos_profile(INSTRUCTION)
            )

    def on_instruction(self, message: Message) -> None:
        """Words of an operator; empty or ``usual`` take back what was asked."""
        try:
            self._take(str(message.data))
        except MonoError as error:
            self._standing = replace(self._standing, refused=str(error))
            self._note("instruction refused", str(error))

    def _take(self, text: str) -> None:
        beginning = read_instruction(text).beginning
        self._standing = _Standing(text, beginning or _USUAL, self._steady())
        self._driver.instruct(beginning)
        self._note("instruction", f"{text!r}, understood: {self._standing.understood}")

    def status(self, steady_s: float) -> dict[str, Any]:
        """Entries for the driver's status; none where nothing is heard."""
        now = self._standing
        if not self.is_heard:
            return {}
        held = {"came": now.came, "understood": now.understood, "for_s": round(steady_s - now.since_s, 1)}
        return {"instruction": held | ({"refused": now.refused} if now.refused else {})}

    def findings(self, steady_s: float) -> list[Finding]:
        """The same for the diagnostics: a refusal is a warning until something is understood."""
        now = self._standing
        if not self.is_heard:
            return []
        values = {"came": now.came, "understood": now.understood, "for, s": f"{steady_s - now.since_s:.1f}"}
        level: Level = "warn" if now.refused else "ok"
        return [Finding("instruction", level, now.refused or now.understood, values)]
