"""Every number of every command has limits, and no way of giving it gets around them."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import math
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from closed_loop.cli import VERBS
from closed_loop.ros.config import DRIVE_NODE, SIMULATE_NODE, DriveConfig
from collector.common.arguments import Argument, Arguments, argument, arguments_of, same_as
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.doctor.config import DoctorConfig
from collector.geometry.curvature import CurveThresholds
from collector.ros.parameters import RECORD_NODE, Program, RecordConfig, declare_parameters

HOSTILE = (math.nan, math.inf, -1, 0, 1e18)


class AskedError(Exception):
    """Which dataclass a verb reads its words into."""


def config_of(name: str, monkeypatch: pytest.MonkeyPatch) -> type:
    """A verb's settings, found by calling the verb."""

    def ask(cls: type, *_: object) -> None:
        raise AskedError(cls)

    verb = VERBS[name]
    module, _, function = verb.target.partition(":")
    if verb.extra == "model":
        pytest.importorskip("torch")
    place = importlib.import_module(module)
    with monkeypatch.context() as patch:
        patch.setattr(place, "command_line", ask)
        with pytest.raises(AskedError) as asked:
            getattr(place, function or "main")([])
    cls: type = asked.value.args[0]
    return cls


def numbers(cls: type, prefix: str = "") -> Iterator[tuple[str, Argument | None]]:
    """Every number among the fields of a dataclass and of those in it, by its key; None for one without limits."""
    known, hints = {each.name: each for each in arguments_of(cls)}, typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from numbers(hint, f"{prefix}{field.name}.")
        elif hint in (int, float) or {int, float} & set(typing.get_args(hint)):
            each = known.get(field.name)
            limited = each is not None and math.isfinite(each.minimum) and math.isfinite(each.maximum)
            yield prefix + field.name, each if limited else None


def unlimited(cls: type) -> list[str]:
    """Numbers without limits, and classes whose values nobody checks."""
    inner = [hint for hint in typing.get_type_hints(cls).values() if isinstance(hint, type)]
    unchecked = [each.__name__ for each in (cls, *inner) if dataclasses.is_dataclass(each) and _is_unchecked(each)]
    return [key for key, each in numbers(cls) if each is None] + unchecked


def _is_unchecked(cls: type) -> bool:
    return bool(arguments_of(cls)) and not issubclass(cls, Arguments)


def required(cls: type) -> dict[str, Any]:
    """A word for each setting without a default, and for what `evaluate` and `dagger` want without a clip, or a bag."""
    hints, values = typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if not optional or field.name in ("dataset", "adapter"):
            many = typing.get_origin(hints[field.name]) is tuple
            values[field.name] = ["somewhere"] if many else "somewhere"
    return values


def merged(values: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """The values and one more under its dotted key."""
    name, _, rest = key.partition(".")
    return values | {name: merged({}, rest, value) if rest else value}


def value_at(config: object, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config[0] if isinstance(config, tuple) else config


def allowed(each: Argument, value: float) -> bool:
    whole = each.type is float or type(value) is int
    return whole and each.minimum <= value <= each.maximum


def check(number: float, key: str, each: Argument, words: Sequence[str], cls: type) -> None:
    """The words give what they say where that is allowed, and a sentence that names the setting where it is not."""
    if allowed(each, number):
        assert value_at(command_line(cls, words, "alpamayo-mono verb"), key) == number
        return
    with pytest.raises(MonoError) as refused:
        command_line(cls, words, "alpamayo-mono verb")
    assert each.name in str(refused.value).replace("-", "_") and "\n" not in str(refused.value)


def test_every_number_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {name: config_of(name, monkeypatch) for name in VERBS}
    missing = {name: unlimited(cls) for name, cls in found.items()}
    assert not {name: keys for name, keys in missing.items() if keys}
    assert sum(len(list(numbers(cls))) for cls in found.values()) > 150, "too few to prove anything"


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_hostile_numbers_are_refused(verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a flag, as name:=value and as a key of a file."""
    cls = config_of(verb, monkeypatch)
    file, needed = tmp_path / "config.yaml", required(cls)
    file.write_text(yaml.safe_dump(needed))
    for (key, each), number in itertools.product(numbers(cls), HOSTILE):
        assert each is not None
        word = f"{number:g}"
        flag = [f"{key}:={word}"] if number < 0 else [f"--{key}", word]
        check(number, key, each, ["--config", str(file), *flag], cls)
        held = tmp_path / "number.yaml"
        held.write_text(yaml.safe_dump(merged(needed, key, [number] if isinstance(each.default, tuple) else number)))
        check(number, key, each, ["--config", str(held)], cls)


@given(st.one_of(st.floats(), st.integers(), st.sampled_from([10**400, -(10**400)])))
def test_a_number_fits_or_is_refused(value: float) -> None:
    for config in (DriveConfig, RecordConfig, DoctorConfig, CurveThresholds):
        for _, each in numbers(config):
            assert each is not None
            given = (value,) if isinstance(each.default, tuple) else value
            try:
                fitted = each.fitted(given)
            except MonoError:
                assert not allowed(each, value)
            else:
                assert allowed(each, value) and fitted in ((value,), value)


@pytest.mark.ros
@pytest.mark.parametrize("program", [RECORD_NODE, DRIVE_NODE, SIMULATE_NODE], ids=lambda program: program.name)
def test_nodes_refuse_hostile_parameters(program: Program, ros_environment: dict[str, str]) -> None:
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        for key, each in numbers(program.parameters):
            assert each is not None
            for value in (math.nan, math.inf, 1e18):
                override = rclpy.parameter.Parameter(key, value=value)
                node = rclpy.create_node("spy", context=context, parameter_overrides=[override])
                with pytest.raises(MonoError, match=key):
                    declare_parameters(node, program.parameters)
                node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


@dataclass(frozen=True)
class _Planted(Arguments):
    free: int = 3
    half: float = argument(0.5, "without an upper limit", 0.0)
    many: tuple[int, ...] = (1,)
    maybe: float | None = None
    fine: float | None = argument(None, "with both", 0.0, 1.0)


@dataclass(frozen=True)
class _Unchecked:
    fine: int = argument(1, "with limits that nobody looks at", 0, 2)


def test_planted_numbers_without_limits_are_found() -> None:
    assert unlimited(_Planted) == ["free", "half", "many", "maybe"]
    assert unlimited(_Unchecked) == ["_Unchecked"]
    assert _Planted().fine is None
    with pytest.raises(MonoError, match="fine:=2"):
        _Planted(fine=2.0)


def test_a_field_like_another_has_its_limits() -> None:
    @dataclass(frozen=True)
    class Like(Arguments):
        fine: float | None = same_as(_Planted, "fine")

    with pytest.raises(MonoError, match=r"fine:=7.*0 to 1.*with both"):
        Like(fine=7.0)


@pytest.mark.parametrize("sizes", ["0", "-1", "nan", "1e18", "9" * 5000, "50,0", "", "1.5", "inf"])
def test_sizes_of_a_sweep_are_refused_with_its_words(sizes: str) -> None:
    pytest.importorskip("torch")
    from finetune.studies.sweep import SweepConfig

    with pytest.raises(MonoError, match="sizes"):
        command_line(SweepConfig, ["--model", "m", "--dataset", "d", f"--sizes={sizes}"], "alpamayo-mono sweep")


@pytest.mark.parametrize("text", ["1_000", "\u0663", "\uff13", "1_0.5"])
def test_what_only_python_takes_for_a_number_is_none(text: str) -> None:
    """On no way: a comma or a point mistyped must not make another number."""
    for name in ("laps", "max_speed_mps"):
        with pytest.raises(MonoError, match=name):
            command_line(DriveConfig, [f"{name}:={text}"], "alpamayo-mono drive")
        with pytest.raises(MonoError, match=name):
            next(each for each in arguments_of(DriveConfig) if each.name == name).from_text(text)
