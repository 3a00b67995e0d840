"""The driver around the model: plans, batches, noise, modes, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from collector.common.errors import MonoError  # noqa: E402
from finetune.alpamayo_policy import AlpamayoPolicy  # noqa: E402
from finetune.checkpoint import LoadedModel, load_model  # noqa: E402
from finetune.policy import CAMERA_ORDER, MODES, Observation, Policy  # noqa: E402
from finetune.processing.images import ImageSettings  # noqa: E402
from finetune.processing.processor import Processor  # noqa: E402
from tests.helpers.paths import TINY  # noqa: E402


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    model = load_model(TINY)
    images = ImageSettings(resize_width_px=96, resize_height_px=64)
    return replace(model, processor=Processor(model.config, model.processor.tokenizer, images))


def observation(stamp_ns: int, speed_mps: float | None = 5.0, cameras: tuple[str, ...] = ("front",)) -> Observation:
    rng = np.random.default_rng(stamp_ns)
    history = np.zeros((16, 3))
    history[:, 0] = np.linspace(-7.5, 0.0, 16)
    frames = {name: rng.integers(0, 255, (4, 36, 64, 3), dtype=np.uint8) for name in cameras}
    return Observation(stamp_ns, frames, history, speed_mps)


def test_a_plan_has_path_reasoning_stamp_and_stages(loaded: LoadedModel) -> None:
    policy = AlpamayoPolicy(loaded, max_reasoning_tokens=8)
    assert isinstance(policy, Policy)
    plan = policy.plan(observation(7))
    assert plan.stamp_ns == 7 and plan.poses.shape == (64, 3) and np.isfinite(plan.poses).all()
    assert {"vision", "prefill", "decode", "action"} <= set(plan.timings_ms)
    assert min(plan.timings_ms.values()) >= 0


def test_plans_do_not_depend_on_their_neighbours(loaded: LoadedModel) -> None:
    for temperature in (0.0, 1.0):
        policy = AlpamayoPolicy(loaded, cameras="mono-4frames", noise_temperature=temperature, max_reasoning_tokens=6)
        seen = [observation(stamp) for stamp in (11, 12, 13)]
        together = policy.plan_many(seen)
        for one, plan in zip(seen, together, strict=False):
            alone = policy.plan(one)
            assert alone.reasoning == plan.reasoning and alone.stamp_ns == plan.stamp_ns
            assert np.abs(alone.poses - plan.poses).max() < 1e-2
        assert np.abs(together[0].poses - together[1].poses).max() > 1e-3
    assert policy.plan_many([]) == []


def test_noise_is_scaled_and_seeded(loaded: LoadedModel) -> None:
    seen = observation(21)

    def path(**settings: float) -> np.ndarray:
        policy = AlpamayoPolicy(loaded, reasoning=False, flow_steps=2, **settings)  # type: ignore[arg-type]
        return policy.plan(seen).poses

    still = path(noise_temperature=0.0)
    assert np.array_equal(still, path(noise_temperature=0.0, seed=5))
    assert np.array_equal(path(noise_temperature=1.0, seed=5), path(noise_temperature=1.0, seed=5))
    assert not np.allclose(path(noise_temperature=1.0, seed=5), path(noise_temperature=1.0, seed=6))


def test_wheel_speed_replaces_the_estimate(loaded: LoadedModel) -> None:
    policy = AlpamayoPolicy(loaded, reasoning=False, flow_steps=1)
    estimated, same, faster = (policy.plan(observation(3, speed)).poses for speed in (None, 5.0, 9.0))
    assert np.abs(estimated - same).max() < 0.05  # the history moves at 5 m/s
    assert np.linalg.norm(faster[0, :2]) / np.linalg.norm(same[0, :2]) == pytest.approx(9.0 / 5.0, rel=0.1)


def test_skipping_the_reasoning_gives_no_text_and_another_prompt(loaded: LoadedModel) -> None:
    plan = AlpamayoPolicy(loaded, reasoning=False).plan(observation(4))
    assert plan.reasoning == "" and plan.timings_ms["decode"] < plan.timings_ms["action"]


def test_every_camera_mode_plans(loaded: LoadedModel) -> None:
    seen = observation(5, cameras=CAMERA_ORDER)
    for mode in MODES:
        plan = AlpamayoPolicy(loaded, cameras=mode, reasoning=False, flow_steps=1).plan(seen)
        assert np.isfinite(plan.poses).all()


def test_unusable_settings_are_named(loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(MonoError, match="camera mode"):
        AlpamayoPolicy(loaded, cameras="stereo")
    with pytest.raises(MonoError, match="flow steps"):
        AlpamayoPolicy(loaded, flow_steps=0)
    with pytest.raises(MonoError, match=r"config\.json"):
        AlpamayoPolicy(tmp_path)
    with pytest.raises(MonoError, match="cross_left"):
        AlpamayoPolicy(loaded, cameras="four").plan(observation(6))


def test_a_folder_says_how_long_its_reasonings_may_be(tmp_path: Path) -> None:
    from finetune.model_files.configuration_files import MAX_REASONING_TOKENS, reasoning_room

    assert reasoning_room(None) == reasoning_room(tmp_path) == MAX_REASONING_TOKENS
    (tmp_path / "generation_config.json").write_text('{"max_new_tokens": 40}')
    assert reasoning_room(tmp_path) == 40
    for wrong in ("[]", '{"max_new_tokens": 0}', "no json"):
        (tmp_path / "generation_config.json").write_text(wrong)
        with pytest.raises(MonoError, match="generation_config"):
            reasoning_room(tmp_path)
