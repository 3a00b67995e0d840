"""Action space, trajectory words, waypoint embedding and flow path against the reference implementation's figures."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from finetune.alpamayo.action_projection import ActionInProjection  # noqa: E402
from finetune.alpamayo.action_space import ActionSpace  # noqa: E402
from finetune.alpamayo.configuration import (  # noqa: E402
    RELEASED_ACTION_SPACE,
    ActionInProjConfig,
    ActionSpaceConfig,
    HistoryTokenizerConfig,
)
from finetune.alpamayo.flow_matching import integrate, interpolate, sample_times, target_velocity  # noqa: E402
from finetune.processing.processor import history_bins  # noqa: E402
from tests.helpers.paths import GOLDEN  # noqa: E402


def planar(xyz: np.ndarray, rot: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    yaw = np.arctan2(rot[..., 1, 0], rot[..., 0, 0])
    return torch.as_tensor(np.concatenate([xyz[..., :2], yaw[..., None]], axis=-1), dtype=dtype)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "action_space.npz"))


def case(golden: dict[str, np.ndarray], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    history = planar(golden["hist_xyz"], golden["hist_rot"], dtype)
    return history, planar(golden["fut_xyz"], golden["fut_rot"], dtype)


def gap(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return float(np.abs(ours.detach().double().numpy() - theirs).max())


def test_actions_and_paths_match_the_reference_in_float64(golden: dict[str, np.ndarray]) -> None:
    history, future = case(golden, torch.float64)
    space = ActionSpace(RELEASED_ACTION_SPACE, dtype=torch.float64)
    assert gap(space.estimate_v0(history), golden["v0_est_f64"]) < 1e-9
    actions = space.traj_to_action(history, future)
    assert gap(actions, golden["action_f64"]) < 1e-9
    back = space.action_to_traj(history, torch.as_tensor(golden["action_f64"]))
    expected = planar(golden["roundtrip_xyz_f64"], golden["roundtrip_rot_f64"], torch.float64)
    assert gap(back[..., :2], expected[..., :2].numpy()) < 1e-9
    turn = back[..., 2] - expected[..., 2]
    assert float(torch.sin(turn).abs().max()) < 1e-9 and float(torch.cos(turn).min()) > 0.9
    wild = space.action_to_traj(history, torch.as_tensor(golden["random_action_norm"]))
    assert gap(wild[..., :2], golden["random_xyz_f64"][..., :2]) < 1e-9
    assert (space.is_within_bounds(actions).numpy() == golden["within_bounds_f64"]).all()


def test_float32_class_defaults_and_rounded_constants(golden: dict[str, np.ndarray]) -> None:
    history, future = case(golden, torch.float32)
    assert gap(ActionSpace(RELEASED_ACTION_SPACE).traj_to_action(history, future), golden["action_f32"]) < 5e-4
    physical = ActionSpace(ActionSpaceConfig()).traj_to_action(history, future)
    assert gap(physical, golden["action_ctor_defaults_f32"]) < 5e-4
    rounded = ActionSpace(RELEASED_ACTION_SPACE, dtype=torch.bfloat16)
    assert gap(rounded.traj_to_action(history, future), golden["action_bf16consts_f32"]) < 5e-4
    wild = rounded.action_to_traj(history, torch.as_tensor(golden["random_action_norm"], dtype=torch.float32))
    assert gap(wild[..., :2], golden["random_xyz_bf16consts_f32"][..., :2]) < 1e-3


def test_a_known_speed_replaces_the_estimate(golden: dict[str, np.ndarray]) -> None:
    history, _ = case(golden, torch.float64)
    space = ActionSpace(RELEASED_ACTION_SPACE, dtype=torch.float64)
    still = -torch.as_tensor(
        [
            RELEASED_ACTION_SPACE.accel_mean / RELEASED_ACTION_SPACE.accel_std,
            RELEASED_ACTION_SPACE.curvature_mean / RELEASED_ACTION_SPACE.curvature_std,
        ]
    )
    path = space.action_to_traj(
        history, still.double().expand(len(history), 64, 2), v0=torch.full((len(history),), 5.0, dtype=torch.float64)
    )
    assert torch.allclose(path[:, -1, 0], torch.tensor(32.0, dtype=torch.float64), atol=1e-5)
    assert float(path[..., 1:].abs().max()) < 1e-5


def test_mirrored_driving_mirrors_the_curvature(golden: dict[str, np.ndarray]) -> None:
    history, future = case(golden, torch.float64)
    flip = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    space = ActionSpace(ActionSpaceConfig(), dtype=torch.float64)
    actions, mirrored = (space.traj_to_action(history, future), space.traj_to_action(history * flip, future * flip))
    assert torch.allclose(mirrored, actions * flip[:2], atol=1e-9)


def test_history_words_are_exact() -> None:
    z = np.load(GOLDEN / "tokenizers.npz")
    bins = history_bins(torch.as_tensor(z["hist_xyz"]), HistoryTokenizerConfig())
    assert (bins.numpy() == z["delta_ids"]).all()


def test_waypoint_embedding_matches_the_reference() -> None:
    from safetensors.torch import load_file

    z = np.load(GOLDEN / "action_in_proj_io.npz")
    module = ActionInProjection(ActionInProjConfig(hidden_size=32), width_out=48)
    weights = load_file(GOLDEN / "action_in_proj_weights.safetensors")
    assert set(weights) == set(module.state_dict())
    rounded = module.sinus[0].freqs.clone()
    assert np.array_equal(rounded.numpy(), z["freqs_bf16"])
    module.load_state_dict({k: v for k, v in weights.items() if "freqs" not in k}, strict=False)
    x, t = torch.as_tensor(z["x"]), torch.as_tensor(z["t"]).flatten()
    assert gap(module(x, t), z["out_bf16freqs"]) < 1e-4
    module.load_state_dict(weights)  # the file holds unrounded frequencies, which must matter
    assert gap(module(x, t), z["out_bf16freqs"]) > 0.1


def test_flow_path_and_euler_reach_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    actions, noise = torch.randn(3, 64, 2, generator=generator), torch.randn(3, 64, 2, generator=generator)
    seen: list[float] = []

    def exact(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(float(t[0]))
        assert torch.allclose(x, interpolate(actions, noise, t), atol=1e-5)
        return target_velocity(actions, noise)

    assert torch.allclose(integrate(exact, noise, 10), actions, atol=1e-5)
    assert np.allclose(seen, np.arange(10) / 10)


def test_training_times_lean_towards_noise() -> None:
    t = sample_times((20000,), torch.Generator().manual_seed(1))
    assert float(t.min()) >= 0 and float(t.max()) <= 0.999
    assert abs(float(t.mean()) - 0.999 * 0.4) < 0.01  # mean of Beta(1.5, 1) is 0.6
