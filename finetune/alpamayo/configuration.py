"""The sizes and constants of an Alpamayo model, as frozen settings.

Reading and writing the official ``config.json`` is in ``configuration_files``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from collector.common.errors import MonoError
from collector.geometry.constants import FUTURE_STEPS, STEP_S

CONFIG_FILE = "config.json"
VLM_CONFIG_FILE = "vlm_config.json"
ALPAMAYO_R1, ALPAMAYO_1_5 = "alpamayo_r1", "alpamayo1_5"
MODEL_TYPES = (ALPAMAYO_R1, ALPAMAYO_1_5)
# What the official first training stage saves: the language model alone.
STAGE_1 = "alpamayo_reasoning_vla"
DTYPES = ("float32", "bfloat16", "float16")

# Published sizes of the backbones of Alpamayo 1 and 1.5 (Qwen3-VL 8B shape).
RELEASED_VLM: dict[str, Any] = {
    "text_config": {
        "vocab_size": 155697,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "hidden_act": "silu",
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "rope_theta": 5e6,
        "mrope_section": [24, 20, 20],
    },
    "vision_config": {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "in_channels": 3,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 4096,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
        "hidden_act": "gelu_pytorch_tanh",
    },
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
RELEASED_BACKBONES = ("Qwen/Qwen3-VL-8B-Instruct", "nvidia/Cosmos-Reason2-8B")


@dataclass(frozen=True)
class ActionSpaceConfig:
    """Unicycle action space; defaults are the class defaults (physical units), not the released constants."""

    accel_mean: float = 0.0
    accel_std: float = 1.0
    curvature_mean: float = 0.0
    curvature_std: float = 1.0
    accel_bounds: tuple[float, float] = (-9.8, 9.8)
    curvature_bounds: tuple[float, float] = (-0.2, 0.2)
    dt: float = STEP_S
    n_waypoints: int = FUTURE_STEPS
    theta_lambda: float = 1e-6
    theta_ridge: float = 1e-8
    v_lambda: float = 1e-6
    v_ridge: float = 1e-4
    a_lambda: float = 1e-4
    a_ridge: float = 1e-4
    kappa_lambda: float = 1e-4
    kappa_ridge: float = 1e-4


RELEASED_ACTION_SPACE = ActionSpaceConfig(
    accel_mean=0.02902694707164455,
    accel_std=0.6810426736454882,
    curvature_mean=0.0002692167976330542,
    curvature_std=0.026148280660833106,
    curvature_bounds=(-0.33, 0.33),
)


@dataclass(frozen=True)
class FlowConfig:
    """Flow matching: integrator and its steps."""

    int_method: str = "euler"
    num_inference_steps: int = 10


@dataclass(frozen=True)
class ActionInProjConfig:
    """Waypoint embedding: width and depth of its trunk, Fourier features per scalar (sine and cosine together)."""

    hidden_size: int = 512
    num_enc_layers: int = 2
    num_fourier_feats: int = 20
    max_freq: float = 100.0


@dataclass(frozen=True)
class FutureTokenizerConfig:
    """Bins of the discrete future trajectory, in normalised action units."""

    action_space_cfg: ActionSpaceConfig = RELEASED_ACTION_SPACE
    dims_min: tuple[float, ...] = (-10.0, -10.0)
    dims_max: tuple[float, ...] = (10.0, 10.0)
    num_bins: int = 3000


@dataclass(frozen=True)
class HistoryTokenizerConfig:
    """Bins of the history's position differences, metres."""

    ego_xyz_min: tuple[float, ...] = (-4.0, -4.0, -10.0)
    ego_xyz_max: tuple[float, ...] = (4.0, 4.0, 10.0)
    num_bins: int = 1000
    predict_yaw: bool = False


@dataclass(frozen=True)
class ExpertConfig:
    """Sizes in which the action expert differs from the language model."""

    hidden_size: int = 2048
    intermediate_size: int = 8256
    num_attention_heads: int = 16
    head_dim: int = 128


@dataclass(frozen=True)
class TrajectoryTokenIds:
    """Vocabulary ids of the trajectory markers and placeholders."""

    history: int = 155684
    future: int = 155685
    history_start: int = 155674
    future_start: int = 155681
    history_end: int = 155676
    future_end: int = 155683


@dataclass(frozen=True)
class AlpamayoConfig:
    """One Alpamayo model: everything needed to build it.

    Attributes:
        vlm: plain sizes of the vision-language model, see ``RELEASED_VLM`` for its keys.
        model_type: generation: one of ``MODEL_TYPES``. 1.5 names cameras and frames in its prompt, renames words that
            nothing uses, and stores no constants; its weights are laid out alike.
        raw: the ``config.json`` this came from; written back unchanged when the model is saved.
    """

    vlm: Mapping[str, Any] = field(default_factory=lambda: RELEASED_VLM)
    expert: ExpertConfig = ExpertConfig()
    action_space: ActionSpaceConfig = RELEASED_ACTION_SPACE
    action_in_proj: ActionInProjConfig = ActionInProjConfig()
    flow: FlowConfig = FlowConfig()
    future_tokenizer: FutureTokenizerConfig = FutureTokenizerConfig()
    history_tokenizer: HistoryTokenizerConfig = HistoryTokenizerConfig()
    token_ids: TrajectoryTokenIds = TrajectoryTokenIds()
    vocab_size: int = 155697
    traj_token_start_idx: int = 151669
    traj_vocab_size: int = 4000
    tokens_per_history_traj: int = 48
    tokens_per_future_traj: int = 128
    min_pixels: int = 163840
    max_pixels: int = 196608
    dtype: str = "bfloat16"
    model_type: str = ALPAMAYO_R1
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def history_token_start_idx(self) -> int:
        """First vocabulary id of the history bins: they follow the bins of the future."""
        return self.traj_token_start_idx + self.future_tokenizer.num_bins


def normalise_vlm(vlm: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """Keep the keys of ``RELEASED_VLM`` from any Qwen3-VL config, old or new spelling of the rotary settings."""
    text, vision = dict(vlm["text_config"]), dict(vlm["vision_config"])
    for name in ("rope_scaling", "rope_parameters"):
        rotary = text.get(name) or {}
        text |= {key: rotary[key] for key in ("rope_theta", "mrope_section") if key in rotary}
    text.setdefault("rope_theta", RELEASED_VLM["text_config"]["rope_theta"])
    text["vocab_size"] = vocab_size
    result: dict[str, Any] = {}
    for part, given in (("text_config", text), ("vision_config", vision)):
        missing = sorted(set(RELEASED_VLM[part]) - set(given))
        if missing:
            raise MonoError(f"{VLM_CONFIG_FILE}: {part} lacks {', '.join(missing)}", "a Qwen3-VL config")
        result[part] = {key: given[key] for key in RELEASED_VLM[part]}
        if "initializer_range" in given:
            result[part]["initializer_range"] = given["initializer_range"]
    for key in RELEASED_VLM:
        if key.endswith("_token_id"):
            result[key] = vlm[key]
    return result
