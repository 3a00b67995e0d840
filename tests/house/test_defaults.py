"""A default or constant stands in one place; every other place refers to it.

The same name with a literal in two places fails, whether the values agree or not: what agrees today is what nobody
finds tomorrow. A name of a single word (``steps``) says little, so there the values must agree too. Where one name does
mean two things, the list below says which.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PACKAGES = ("collector", "finetune", "closed_loop")
TRIVIAL = (0, 1, -1)
UNITS = re.compile(r"_(s|ms|ns|m|mm|px|deg|rad|radps|mps|mps2|1ps|1pm|hz|bytes|mb)$")
# What means the same under another word.
SYNONYMS = {"frame_age": "frame_timeout", "odometry_age": "odometry_timeout", "plan_age": "plan_timeout", "dt": "step"}

# Names that mean something else in each place; anything new here wants the reason.
DIFFERENT = {
    "adapter_weights": "a file name of peft, known to the doctor (below) and to the adapters",
    "batch_size": "each command's own: of a training step, or of what a pass can hold",
    "course_step": "of each maker of courses",
    "device": "of a single torch call; commands take PolicySettings.device, the doctor cannot know it",
    "digits": "of a printed figure",
    "gone_after": "a recorder ends on silence sooner than a drive",
    "hidden_act": "of different networks",
    "hidden_size": "of different networks",
    "intermediate_size": "of different networks",
    "jpeg_quality": "recorded frames are small, frames for training are kept well",
    "learning_rate": "of a base, of adapters, of a few samples learned by heart",
    "metadata_file": "of a bag, of a dataset",
    "most": "of bytes in a card",
    "named": "how many names an error lists",
    "num_attention_heads": "of different networks",
    "num_bins": "of different tokenizers",
    "samples": "compared, shown",
    "speed_gain": "of the plan's follower, of the expert",
    "split": "what each command looks at",
    "starts": "of a comparison, of the demo",
    "steer_rate": "of the command, of the kart's wheels",
    "step": "of a course's line",
}

Found = tuple[str, object, str]  # normalised name, value, place


def normalised(name: str) -> str:
    name = UNITS.sub("", name.lower().strip("_").removeprefix("default_"))
    return SYNONYMS.get(name, name)


def literal(node: ast.expr | None) -> object:
    """The value of a literal worth finding twice; None for anything else."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("argument", "field"):
        defaults = [word.value for word in node.keywords if word.arg == "default"]
        return literal((*node.args[:1], *defaults, None)[0])
    try:
        value = ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None
    if isinstance(value, bool) or value is None or value in TRIVIAL or not isinstance(value, (int, float, str)):
        return None
    # A text with spaces is a message, no setting.
    return None if isinstance(value, str) and (not value or " " in value) else value


def found_in(source: str, place: str) -> Iterator[Found]:
    """Literal defaults of dataclass fields and parameters, and constants."""
    tree = ast.parse(source)
    pairs: list[tuple[str, ast.expr | None, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            pairs += [
                (item.target.id, item.value, item.lineno)
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            ]
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = [*node.args.posonlyargs, *node.args.args]
            pairs += [(a.arg, v, a.lineno) for a, v in zip(names[::-1], node.args.defaults[::-1], strict=False)]
            pairs += [(a.arg, v, a.lineno) for a, v in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        for target in targets:
            value = statement.value  # type: ignore[attr-defined]
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            values = value.elts if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) else [value]
            pairs += [
                (name.id, each, statement.lineno)
                for name, each in zip(names, values, strict=False)
                if isinstance(name, ast.Name) and name.id.isupper()
            ]
    for name, node, line in pairs:
        value = literal(node)
        if value is not None:
            yield normalised(name), value, f"{place}:{line}"


def duplicates(found: list[Found]) -> dict[str, list[str]]:
    """Names with a literal in more than one place."""
    places: dict[str, list[str]] = {}
    for name, value, place in found:
        key = name if "_" in name else f"{name} {value!r}"
        places.setdefault(key, []).append(f"{place} = {value!r}")
    return {key.partition(" ")[0]: where for key, where in sorted(places.items()) if len(where) > 1}


def read_all() -> list[Found]:
    return [
        each
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for each in found_in(path.read_text(encoding="utf-8"), str(Path(path).relative_to(ROOT)))
    ]


def test_no_default_is_written_twice() -> None:
    found = read_all()
    assert len(found) > 300, "the walk found too little to prove anything"
    twice = duplicates(found)
    new = {name: where for name, where in twice.items() if name not in DIFFERENT}
    assert not new, "written twice:\n" + "\n".join(f"{name}: {'; '.join(where)}" for name, where in new.items())
    assert not set(DIFFERENT) - set(twice), "listed as different things, yet found once at most"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("class C:\n    odometry_timeout_s: float = 0.5", "class D:\n    odometry_age_s: float = 0.3"),
        ("class C:\n    gain: float = 0.62", "def steer(angle, *, gain=0.62): ..."),
        ("STEP_NS = 100", "_STEP_NS = 100"),
        ("STEPS, SIZE = 64, 7", "def cut(steps: int = 64): ..."),
        (
            "class C:\n    gain: float = argument(0.62, 'of the kart')",
            "class D:\n    gain: float = field(default=0.62)",
        ),
        ("class C:\n    policy: str = 'a:B'", "DEFAULT_POLICY = 'a:B'"),
    ],
)
def test_a_planted_duplicate_is_found(one: str, other: str) -> None:
    assert len(duplicates([*found_in(one, "one.py"), *found_in(other, "other.py")])) == 1


@pytest.mark.parametrize(
    "other",
    [
        "class D:\n    gain: float = C.gain",
        "class D:\n    gain: float = 0.0",
        "class D:\n    again: float = 0.62",
        "class D:\n    gain: float = 3.0",
    ],
)
def test_a_reference_is_no_duplicate(other: str) -> None:
    assert not duplicates([*found_in("class C:\n    gain: float = 0.62", "one.py"), *found_in(other, "other.py")])
