"""The engine plans what the model plans operation by operation, whatever it was told to expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from collector.common.errors import MonoError
from finetune.alpamayo.draft import ReasoningPace
from finetune.alpamayo.placement import HostEmbedding, is_packed
from finetune.alpamayo.sampling import medoid
from finetune.alpamayo_policy import AlpamayoPolicy
from finetune.engine import engine as engine_module
from finetune.engine.engine import DRAFT_LENGTHS, Engine, PromptShape
from finetune.engine.fixed_decoder import UnsuitableError
from finetune.engine.frames import FramePatches
from finetune.policy import Observation, camera_of_each_image, select_images, takes_instructions
from finetune.processing.images import ImageSettings, preprocess
from finetune.processing.processor import Encoded
from tests.helpers.driven_samples import arc
from tests.helpers.small_model import small_model

ROOM = 70


def observation(number: int, frames: int = 1) -> Observation:
    generator = np.random.default_rng(number)
    # The size that the model is shown, so that no grey level is rounded.
    images = generator.integers(0, 255, (frames, 64, 96, 3), dtype=np.uint8)
    return Observation(10**9 * (number + 1), {"front": images}, arc(0.05 * (number % 5))[0], 2.0 + number)


def policy_of(mode: str = "mono", *, reasoning: bool = True, engine: str = "eager") -> AlpamayoPolicy:
    """In double precision: along the Euler steps random weights make a thousandth of what is a billionth at first."""
    loaded = small_model()
    loaded.model.double()
    policy = AlpamayoPolicy(loaded, cameras=mode, reasoning=reasoning, max_reasoning_tokens=ROOM, engine=engine)
    for parameter in policy.model.parameters():
        parameter.requires_grad_(requires_grad=False)
    return policy


def prompt(policy: AlpamayoPolicy, seen: Observation) -> Encoded:
    images = select_images(seen, policy.cameras)
    asked = None if policy.reasoning else ""
    return policy.processor.encode(images, seen.history, asked, camera_of_each_image(policy.cameras))


def engine_for(policy: AlpamayoPolicy, seen: Observation) -> Engine:
    encoded = prompt(policy, seen)
    shape = PromptShape.of(encoded.input_ids, encoded.grid_thw, policy.model.settings.vlm["image_token_id"])
    images = select_images(seen, policy.cameras)
    frames = FramePatches(len(images), *images[0].shape[:2], policy.processor.images, torch.device("cpu"))
    room = ROOM if policy.reasoning else 0
    return Engine(policy.model, shape, frames, room=room, flow_steps=3, cot_end_id=policy.processor.cot_end_id)


def ask(
    engine: Engine, policy: AlpamayoPolicy, seen: Observation, draft: Sequence[int] = (), text: Sequence[int] = ()
) -> tuple[list[int], int, torch.Tensor]:
    engine.see(select_images(seen, policy.cameras))
    choices = engine.prefill(prompt(policy, seen).input_ids, draft)
    words, passes = engine.write(draft, choices, lambda said: text[len(said) :]) if policy.reasoning else ([], 0)
    noise = torch.randn(1, 64, 2, generator=torch.Generator().manual_seed(seen.stamp_ns % 1000))
    return words, passes, engine.drive(noise)


@torch.no_grad()
def wanted(policy: AlpamayoPolicy, seen: Observation) -> tuple[list[int], torch.Tensor]:
    encoded = prompt(policy, seen)
    ids = encoded.input_ids[None]
    vision = policy.model.encode_images(encoded.pixel_values, encoded.grid_thw)
    prefix, words = policy.model.run_prefix(ids, torch.ones_like(ids), vision, encoded.grid_thw), []
    if policy.reasoning:
        answer = policy.write(prefix)
        prefix, words = answer.prefix, answer.tokens[0]
    noise = torch.randn(1, 64, 2, generator=torch.Generator().manual_seed(seen.stamp_ns % 1000))
    return words, policy.model.sample_actions(prefix, noise, 3)


@pytest.mark.parametrize("mode", ["mono", "mono-4frames"])
def test_plans_are_those_of_the_reference(mode: str) -> None:
    """One after the other, so that whatever an earlier plan left behind would show."""
    policy = policy_of(mode)
    count = 4 if mode == "mono-4frames" else 1
    engine = engine_for(policy, observation(0, count))
    passes_seen = []
    for number in range(5):
        seen = observation(number, count)
        words, actions = wanted(policy, seen)
        assert len(words) == ROOM
        wrong = [*words[:9], words[9] ^ 1, *words[10:]]
        for draft, text in (((), ()), (words, words), (wrong, words), (wrong, ()), ([5] * 200, words)):
            found, passes, driven = ask(engine, policy, seen, draft, text)
            assert found == words
            passes_seen.append(passes)
            assert float((driven - actions).abs().max()) < 1e-4 * float(actions.abs().max())
    assert passes_seen[0] == ROOM
    # A draft is read along up to the longest one; the rest takes passes of sixteen words.
    assert passes_seen[1] == -(-(ROOM - DRAFT_LENGTHS[-1]) // 16)
    assert 3 <= passes_seen[2] <= 5


def test_without_reasoning() -> None:
    policy = policy_of("mono", reasoning=False)
    seen = observation(2)
    engine = engine_for(policy, seen)
    for _ in range(2):
        _, _, driven = ask(engine, policy, seen)
        _, actions = wanted(policy, seen)
        assert float((driven - actions).abs().max()) < 1e-4 * float(actions.abs().max())


def test_nothing_is_recorded_while_driving(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of()
    made = []

    class Counted(engine_module.Recorded):
        def __init__(self, *arguments: object) -> None:
            made.append(arguments)
            super().__init__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_module, "Recorded", Counted)
    engine = engine_for(policy, observation(0))
    at_first = len(made)
    assert at_first == len(DRAFT_LENGTHS) + 3
    for number in range(6):
        ask(engine, policy, observation(number), list(range(13 * number)))
    assert len(made) == at_first


def test_the_policy_plans_alike_with_its_engine() -> None:
    """The whole way of a policy that plans for one kart on a GPU, here without one."""
    eager = policy_of()
    fast = policy_of(engine="fast")
    fast._engines = {}
    passes = []
    for number in (0, 0, 1, 1):
        seen = observation(number)
        expected, plan = eager.plan(seen), fast.plan(seen)
        assert plan.reasoning == expected.reasoning
        assert set(plan.timings_ms) == set(expected.timings_ms)
        np.testing.assert_allclose(plan.poses, expected.poses, atol=1e-3)
        passes.append(plan.passes)
    assert len(fast._engines) == 1
    assert passes[1] < passes[0]
    # A frame of another size is another engine, and no error.
    other = replace(observation(0), frames={"front": np.zeros((1, 128, 192, 3), np.uint8)})
    np.testing.assert_allclose(fast.plan(other).poses, eager.plan(other).poses, atol=1e-3)
    assert len(fast._engines) == 2


@pytest.mark.parametrize("engines", [None, {}])
def test_a_reasoning_begins_as_it_is_asked_to(engines: dict[object, Engine] | None) -> None:
    """By both ways of planning the same text and path, with an instruction, another, and none again."""
    eager, fast = policy_of(), policy_of(engine="fast")
    fast._engines = engines  # type: ignore[assignment]
    paths = []
    for instruction, beginning in (
        ("", ""),
        ("keep left", "Keep to the left edge"),
        ("Keep to the left edge", "Keep to the left edge"),
        ("slower, on the right", "Keep to the right edge and drive slowly"),
        ("", ""),
        ("左端を走って", "指示どおり左端を走る。"),
    ):
        seen = replace(observation(0), instruction=instruction)
        expected, plan = eager.plan(seen), fast.plan(seen)
        assert plan.reasoning == expected.reasoning
        assert plan.reasoning.startswith(beginning)
        assert len(plan.reasoning) > len(beginning)
        np.testing.assert_allclose(plan.poses, expected.poses, atol=1e-3)
        paths.append(plan.poses)
    assert engines is None or len(engines) == 1  # which was made for the first plan
    np.testing.assert_allclose(paths[0], paths[4], atol=1e-3)
    np.testing.assert_allclose(paths[1], paths[2], atol=1e-3)
    assert np.abs(paths[1] - paths[0]).max() > 0.01 and np.abs(paths[3] - paths[1]).max() > 0.01
    # Several karts at once, each asked for something else, plan as each alone.
    rows = [replace(observation(number), instruction=said) for number, said in enumerate(("", "faster", "keep right"))]
    for plan, row in zip(fast.plan_many(rows), rows, strict=True):
        alone = eager.plan(row)
        assert plan.reasoning == alone.reasoning
        np.testing.assert_allclose(plan.poses, alone.poses, atol=1e-3)


def test_an_instruction_that_cannot_be_taken_is_refused() -> None:
    with pytest.raises(MonoError, match="'moon' is not understood"):
        policy_of().plan(replace(observation(0), instruction="to the moon"))
    silent = policy_of(reasoning=False)
    assert not takes_instructions(silent) and takes_instructions(policy_of())
    with pytest.raises(MonoError, match="does not reason"):
        silent.plan(replace(observation(0), instruction="keep left"))
    short = policy_of()
    short.max_reasoning_tokens = 10
    short.plan(observation(0))
    with pytest.raises(MonoError, match="where 10 are all there is"):
        short.plan(replace(observation(0), instruction="keep left"))
    short.check_instruction("")
    for said, why in (("keep left", "as asked.', .* tokens"), ("to the moon", "not understood")):
        with pytest.raises(MonoError, match=why):
            short.check_instruction(said)


@pytest.mark.parametrize("engine", ["eager", "fast"])
def test_what_is_said_once_more_makes_way_for_an_instruction(engine: str) -> None:
    policy = policy_of(engine=engine)
    policy._pace = ReasoningPace(2.0)
    said = []
    for stamp_s, instruction in ((10.0, ""), (10.1, "keep left"), (10.2, "keep left"), (10.3, ""), (10.4, "")):
        seen = replace(observation(0), stamp_ns=round(stamp_s * 1e9), instruction=instruction)
        plan = policy.plan(seen)
        said.append((round(plan.reasoning_age_s, 3), plan.reasoning.startswith("Keep to the left edge")))
    assert said == [(0.0, False), (0.0, True), (0.1, True), (0.0, False), (0.1, False)]


def test_what_cannot_be_recorded_is_planned_operation_by_operation(capsys: pytest.CaptureFixture[str]) -> None:
    fast = policy_of(engine="fast")
    expected = fast.plan(observation(0))
    fast._engines = {}
    layer = fast.model.expert.layers[0].self_attn
    layer.o_proj = torch.nn.Sequential(layer.o_proj)  # as an adapter beside the weight would be
    np.testing.assert_allclose(fast.plan(observation(0)).poses, expected.poses, atol=1e-4)
    assert "operation by operation" in capsys.readouterr().err
    with pytest.raises(UnsuitableError, match="matrices"):
        engine_for(fast, observation(0))


def test_a_packed_model_is_planned_with_by_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("bitsandbytes")
    loaded = small_model(hidden=64)
    plain = AlpamayoPolicy(loaded, max_reasoning_tokens=ROOM, engine="eager").plan(observation(0))
    eager, fast = (
        AlpamayoPolicy(loaded, max_reasoning_tokens=ROOM, engine=way, quantised="nf4") for way in ("eager", "fast")
    )
    language = fast.model.vlm.model.language_model
    assert isinstance(language.embed_tokens, HostEmbedding) and is_packed(language.layers[0].mlp.down_proj)
    fast._engines = {}
    with torch.no_grad():
        expected, found, again = eager.plan(observation(0)), fast.plan(observation(0)), fast.plan(observation(0))
    assert len(fast._engines) == 1 and "operation by operation" not in capsys.readouterr().err
    assert found.reasoning == expected.reasoning and again.passes < found.passes
    # Over two seconds: by the end of the path random weights turn a CPU's rounding into several centimetres.
    np.testing.assert_allclose(found.poses[:20], expected.poses[:20], atol=2e-2)
    assert np.abs(found.poses - plain.poses).max() > 0.0


SETTINGS = [
    ImageSettings(),
    ImageSettings(crop_top=0.3, crop_bottom=0.1),
    ImageSettings(64 * 96, 64 * 96, resize_width_px=96, resize_height_px=64),
]


@pytest.mark.parametrize("size", [(90, 160), (270, 480), (480, 640)])
@pytest.mark.parametrize("settings", SETTINGS)
def test_patches_are_those_of_the_processor(settings: ImageSettings, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    images = [generator.integers(0, 255, (*size, 3), dtype=np.uint8) for _ in range(2)]
    wanted_patches, grids = preprocess(images, settings)
    frames = FramePatches(2, *size, settings, torch.device("cpu"))
    for _ in range(2):
        frames.put(images)
        found = frames.patches().numpy()
        assert found.shape == wanted_patches.shape
        # Whole grey levels; a sum that lies between two may be rounded the other way.
        grey = np.abs(found - wanted_patches) * 127.5
        assert grey.max() < 1.001
        assert (grey > 0.01).mean() < 1e-3
    assert len(grids) == 2


def test_of_several_paths_the_one_in_the_middle_is_driven() -> None:
    one, several = policy_of(), policy_of(engine="fast")
    one.noise_temperature, several.samples = 1.0, 5
    seen = observation(0)
    singles = np.array([draws for _, draws in [one.plan_draws([seen], 4)[0]][0:1]])[0]
    paths = np.concatenate([one.plan(seen).poses[None], singles])
    plan = several.plan(seen)
    middle = medoid(paths)
    np.testing.assert_allclose(plan.poses, paths[middle], atol=1e-3)
    others = [float(np.abs(plan.poses - path).max()) for index, path in enumerate(paths) if index != middle]
    assert min(others) > 1e-2
    several._engines = {}
    np.testing.assert_allclose(several.plan(seen).poses, paths[middle], atol=1e-3)


def test_the_middle_path() -> None:
    paths = np.zeros((5, 64, 3))
    paths[:, :, 1] = np.array([3.0, -2.0, 0.1, 0.4, 0.5])[:, None]
    assert medoid(paths) == 3
    assert medoid(paths[:1]) == 0


@pytest.mark.parametrize("engines", [None, {}])
def test_a_reasoning_is_said_once_more_until_it_is_due(engines: dict[object, Engine] | None) -> None:
    """At 2 Hz of the stamps; what is said again is said whatever the picture shows, and the path is of the picture."""
    slow, own = policy_of(engine="fast"), policy_of()
    slow._pace, slow._engines = ReasoningPace(2.0), engines  # type: ignore[assignment]
    said = []
    for number, stamp_s in enumerate((10.0, 10.2, 10.4, 10.6, 10.7)):
        seen = replace(observation(number), stamp_ns=round(stamp_s * 1e9))
        plan, free = slow.plan(seen), own.plan(seen)
        said.append((plan.reasoning, round(plan.reasoning_age_s, 3), plan.passes, free.reasoning))
        assert 0 < plan.started_ns < plan.ended_ns
    texts, ages_s, passes, free_texts = zip(*said, strict=True)
    assert ages_s == (0.0, 0.2, 0.4, 0.0, 0.1)
    assert texts[0] == texts[1] == texts[2] == free_texts[0]
    assert texts[3] == texts[4] == free_texts[3]
    # Longer than a draft that is read along with the prompt, they may take one pass more.
    assert passes[0] == ROOM
    assert max(passes[1], passes[2], passes[4]) <= 1
    # A clock that was set back is no reason to go on saying it.
    back = slow.plan(replace(observation(1), stamp_ns=10**9))
    assert back.reasoning_age_s == 0.0
    assert back.reasoning == free_texts[1]


def test_who_forgets_plans_the_same_to_the_last_digit() -> None:
    """So that a comparison's runs are the same whichever process drove which of them before."""
    policy = AlpamayoPolicy(small_model(), max_reasoning_tokens=ROOM, engine="fast")
    first = [policy.plan(observation(number)) for number in (0, 1, 2)]
    other = policy.plan(observation(0))
    assert other.passes < first[0].passes
    policy.forget()
    for plan, number in zip(first, (0, 1, 2), strict=True):
        again = policy.plan(observation(number))
        assert np.array_equal(again.poses, plan.poses)
        assert again.passes == plan.passes
