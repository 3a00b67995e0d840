"""The command line of record, drive and simulate: from words to typed values, and the help text.

Both spellings work, ``adapter:=runs/lora`` as with ``ros2 launch`` and ``--adapter runs/lora`` as with other programs.
Names, types, defaults and help are those of :mod:`collector.ros.parameters`.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Mapping, Sequence

from collector.common.errors import MonoError
from collector.ros.launching import launch_text
from collector.ros.parameters import Argument, Value, Verb, arguments_of

_PURPOSE: Mapping[Verb, str] = {
    "record": "Record front frames (as JPEG), poses and vehicle state to an mcap bag, from AWSIM or from the embedded "
    "simulator, until Ctrl-C or duration_s. Prints expected, received and lost frames at the end.",
    "drive": "Drive the kart closed-loop with one camera: plans from the model, control_cmd at control_hz, brakes when "
    "frames, odometry or plans are missing. Writes a log and the lateral deviation from the reference.",
    "simulate": "Run the embedded simulator alone: it speaks AWSIM's topics, so other programs can record or drive in "
    "it.",
}
_EXAMPLES: Mapping[Verb, tuple[str, ...]] = {
    "record": (
        "alpamayo-mono record out:=runs/lap1                                 # AWSIM is running",
        "alpamayo-mono record simulator:=true duration_s:=120 episode_s:=20  # without AWSIM",
    ),
    "drive": (
        "alpamayo-mono drive adapter:=runs/lora/adapter                      # AWSIM is running",
        "alpamayo-mono drive --simulator --adapter runs/lora/adapter --laps 2",
    ),
    "simulate": ("alpamayo-mono simulate course:=random:7 expert:=true",),
}


def parse_command(verb: Verb, words: Sequence[str]) -> dict[str, Value]:
    """The values given on a command line, checked and typed; defaults are not filled in.

    Args:
        verb: record, drive or simulate.
        words: ``name:=value``, ``--name value``, ``--name=value``, ``--flag`` or ``--no-flag``.

    Raises:
        MonoError: an unknown name, a missing value, or a value that does not fit.
    """
    known = {argument.name: argument for argument in arguments_of(verb)}
    values: dict[str, Value] = {}
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if word.startswith("--"):
            name, joined, text = word[2:].partition("=")
            name = name.replace("-", "_")
            if name.startswith("no_") and not joined and _is_flag(known.get(name[3:])):
                name, joined, text = name[3:], "=", "false"
            argument = _known(name, known, verb)
            if not joined:
                text = _following(argument, word, remaining)
        elif ":=" in word:
            name, _, text = word.partition(":=")
            argument = _known(name, known, verb)
        else:
            raise MonoError(
                f"the word {word!r}", "name:=value or --name value", f"see the names with: alpamayo-mono {verb} --help"
            )
        values[argument.name] = argument.parse(text)
    return values


def help_text(verb: Verb) -> str:
    """What ``alpamayo-mono VERB --help`` prints."""
    arguments = arguments_of(verb)
    width = max(len(argument.name) for argument in arguments)
    lines = [f"usage: alpamayo-mono {verb} [name:=value | --name value] ...", ""]
    lines += [*textwrap.wrap(_PURPOSE[verb], 100), "", "examples:"]
    lines += [f"  {example}" for example in _EXAMPLES[verb]]
    lines += ["", "arguments (default in brackets):"]
    for argument in arguments:
        default = launch_text(argument, verb) or "empty"
        text = f"[{default}] {argument.help}"
        if argument.choices:
            text += f" ({' | '.join(argument.choices)})"
        lines += textwrap.wrap(
            text, 110, initial_indent=f"  {argument.name:<{width}}  ", subsequent_indent=" " * (width + 4)
        )
    return "\n".join(lines)


def _is_flag(argument: Argument | None) -> bool:
    return argument is not None and argument.type is bool


def _known(name: str, known: Mapping[str, Argument], verb: Verb) -> Argument:
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    raise MonoError(
        f"{verb} has no argument {name!r}",
        f"{close[0]!r}, perhaps" if close else "",
        f"see the names with: alpamayo-mono {verb} --help",
    )


def _following(argument: Argument, word: str, remaining: list[str]) -> str:
    """The value of ``--name value``; a flag may stand alone and then means true."""
    if argument.type is bool:
        if remaining:
            try:
                argument.parse(remaining[0])
            except MonoError:
                return "true"
            return remaining.pop(0)
        return "true"
    if not remaining or ":=" in remaining[0] or (remaining[0].startswith("--") and len(remaining[0]) > 2):
        raise MonoError(f"{word} without a value", f"a value of type {argument.type.__name__}", argument.help)
    return remaining.pop(0)
