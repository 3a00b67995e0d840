"""The sizes and constants of an Alpamayo model, as frozen settings.

Reading and writing the official ``config.json`` is in ``configuration_files``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from collector.common.arguments import Arguments, argument, same_as
from collector.common.errors import MonoError
from collector.geometry.constants import FUTURE_STEPS, STEP_S

CONFIG_FILE = "config.json"
VLM_CONFIG_FILE = "vlm_config.json"
ALPAMAYO_R1, ALPAMAYO_1_5 = "alpamayo_r1", "alpamayo1_5"
MODEL_TYPES = (ALPAMAYO_R1, ALPAMAYO_1_5)
# What the official first training stage saves: the language model alone.
STAGE_1 = "alpamayo_reasoning_vla"
DTYPES = ("float32", "bfloat16", "float16")
# Beyond these no model was released, and building one would take hours.
_MOST_LAYERS, _WIDEST, _MOST_WORDS = 512, 131_072, 4_000_000


@dataclass(frozen=True)
class TextSizes(Arguments):
    """Sizes of the language model; defaults are those published for Alpamayo 1 and 1.5 (Qwen3-VL 8B shape)."""

    vocab_size: int = argument(155697, "words", 1, _MOST_WORDS)
    hidden_size: int = argument(4096, "width", 1, _WIDEST)
    intermediate_size: int = argument(12288, "width of the perceptron", 1, _WIDEST)
    num_hidden_layers: int = argument(36, "layers", 1, _MOST_LAYERS)
    num_attention_heads: int = argument(32, "query heads", 1, 1024)
    num_key_value_heads: int = argument(8, "key and value heads", 1, 1024)
    head_dim: int = argument(128, "width of a head", 1, 4096)
    hidden_act: str = argument("silu", "activation")
    max_position_embeddings: int = argument(262144, "longest text", 1, 1 << 24)
    rms_norm_eps: float = argument(1e-6, "added to a variance", 0.0, 0.1)
    attention_bias: bool = argument(False, "biases of the attention")
    rope_theta: float = argument(5e6, "base of the rotary frequencies", 1.0, 1e12)
    mrope_section: tuple[int, int, int] = argument((24, 20, 20), "rotary channels of time, row, column", 0, 2048)


@dataclass(frozen=True)
class VisionSizes(Arguments):
    """Sizes of the vision tower, likewise."""

    depth: int = argument(27, "layers", 1, _MOST_LAYERS)
    hidden_size: int = argument(1152, "width", 1, _WIDEST)
    intermediate_size: int = argument(4304, "width of the perceptron", 1, _WIDEST)
    num_heads: int = argument(16, "heads", 1, 1024)
    in_channels: int = argument(3, "colours", 3, 3)
    patch_size: int = argument(16, "pixels per side of a patch", 1, 256)
    spatial_merge_size: int = argument(2, "patches per side of a word", 1, 16)
    temporal_patch_size: int = argument(2, "frames of a patch", 1, 16)
    out_hidden_size: int = argument(4096, "width of the language model", 1, _WIDEST)
    num_position_embeddings: int = argument(2304, "places that were learned, a square", 1, 1 << 20)
    deepstack_visual_indexes: tuple[int, ...] = argument((8, 16, 24), "layers shown in between", 0, _MOST_LAYERS)
    hidden_act: str = argument("gelu_pytorch_tanh", "activation")


def _plain(sizes: TextSizes | VisionSizes) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(sizes).items()}


# Published sizes of the backbones of Alpamayo 1 and 1.5.
RELEASED_VLM: dict[str, Any] = {
    "text_config": _plain(TextSizes()),
    "vision_config": _plain(VisionSizes()),
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
RELEASED_BACKBONES = ("Qwen/Qwen3-VL-8B-Instruct", "nvidia/Cosmos-Reason2-8B")


@dataclass(frozen=True)
class ActionSpaceConfig(Arguments):
    """Unicycle action space; defaults are the class defaults (physical units), not the released constants."""

    accel_mean: float = argument(0.0, "m/s^2", -100.0, 100.0)
    accel_std: float = argument(1.0, "m/s^2", 1e-06, 100.0)
    curvature_mean: float = argument(0.0, "1/m", -10.0, 10.0)
    curvature_std: float = argument(1.0, "1/m", 1e-06, 10.0)
    accel_bounds: tuple[float, float] = argument((-9.8, 9.8), "m/s^2", -1000.0, 1000.0)
    curvature_bounds: tuple[float, float] = argument((-0.2, 0.2), "1/m", -100.0, 100.0)
    dt: float = argument(STEP_S, "seconds", 0.001, 10.0)
    n_waypoints: int = argument(FUTURE_STEPS, "steps of a path", 1, 1024)
    theta_lambda: float = argument(1e-6, "weight of the smoothing", 0.0, 1000000.0)
    theta_ridge: float = argument(1e-8, "weight of the smoothing", 0.0, 1000000.0)
    v_lambda: float = argument(1e-6, "weight of the smoothing", 0.0, 1000000.0)
    v_ridge: float = argument(1e-4, "weight of the smoothing", 0.0, 1000000.0)
    a_lambda: float = argument(1e-4, "weight of the smoothing", 0.0, 1000000.0)
    a_ridge: float = argument(1e-4, "weight of the smoothing", 0.0, 1000000.0)
    kappa_lambda: float = argument(1e-4, "weight of the smoothing", 0.0, 1000000.0)
    kappa_ridge: float = argument(1e-4, "weight of the smoothing", 0.0, 1000000.0)


RELEASED_ACTION_SPACE = ActionSpaceConfig(
    accel_mean=0.02902694707164455,
    accel_std=0.6810426736454882,
    curvature_mean=0.0002692167976330542,
    curvature_std=0.026148280660833106,
    curvature_bounds=(-0.33, 0.33),
)


@dataclass(frozen=True)
class FlowConfig(Arguments):
    """Flow matching: integrator and its steps."""

    int_method: str = "euler"
    num_inference_steps: int = argument(10, "Euler steps", 1, 100)


@dataclass(frozen=True)
class ActionInProjConfig(Arguments):
    """Waypoint embedding: width and depth of its trunk, Fourier features per scalar (sine and cosine together)."""

    hidden_size: int = argument(512, "width", 1, _WIDEST)
    num_enc_layers: int = argument(2, "layers of the trunk", 1, _MOST_LAYERS)
    num_fourier_feats: int = argument(20, "sine and cosine together", 2, 4096)
    max_freq: float = argument(100.0, "highest frequency", 0.001, 1000000.0)


@dataclass(frozen=True)
class FutureTokenizerConfig(Arguments):
    """Bins of the discrete future trajectory, in normalised action units."""

    action_space_cfg: ActionSpaceConfig = RELEASED_ACTION_SPACE
    dims_min: tuple[float, ...] = argument((-10.0, -10.0), "lower ends of the bins", -1000000.0, 1000000.0)
    dims_max: tuple[float, ...] = argument((10.0, 10.0), "upper ends of the bins", -1000000.0, 1000000.0)
    num_bins: int = argument(3000, "bins", 2, 1000000)


@dataclass(frozen=True)
class HistoryTokenizerConfig(Arguments):
    """Bins of the history's position differences, metres."""

    ego_xyz_min: tuple[float, ...] = argument((-4.0, -4.0, -10.0), "metres", -1000000.0, 1000000.0)
    ego_xyz_max: tuple[float, ...] = argument((4.0, 4.0, 10.0), "metres", -1000000.0, 1000000.0)
    num_bins: int = argument(1000, "bins", 2, 1000000)
    predict_yaw: bool = False


@dataclass(frozen=True)
class ExpertConfig(Arguments):
    """Sizes in which the action expert differs from the language model."""

    hidden_size: int = argument(2048, "width", 1, _WIDEST)
    intermediate_size: int = argument(8256, "width of the perceptron", 1, _WIDEST)
    num_attention_heads: int = argument(16, "query heads", 1, 1024)
    head_dim: int = same_as(TextSizes, "head_dim")


@dataclass(frozen=True)
class TrajectoryTokenIds(Arguments):
    """Vocabulary ids of the trajectory markers and placeholders."""

    history: int = argument(155684, "id", 0, _MOST_WORDS)
    future: int = argument(155685, "id", 0, _MOST_WORDS)
    history_start: int = argument(155674, "id", 0, _MOST_WORDS)
    future_start: int = argument(155681, "id", 0, _MOST_WORDS)
    history_end: int = argument(155676, "id", 0, _MOST_WORDS)
    future_end: int = argument(155683, "id", 0, _MOST_WORDS)


@dataclass(frozen=True)
class AlpamayoConfig(Arguments):
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
    vocab_size: int = same_as(TextSizes, "vocab_size")
    traj_token_start_idx: int = argument(151669, "id of the first bin", 0, _MOST_WORDS)
    traj_vocab_size: int = argument(4000, "bins in the vocabulary", 1, 1000000)
    tokens_per_history_traj: int = argument(48, "words of a history", 1, 65536)
    tokens_per_future_traj: int = argument(128, "words of a future", 1, 65536)
    min_pixels: int = argument(163840, "least pixels of an image", 1, 67108864)
    max_pixels: int = argument(196608, "most pixels of an image", 1, 67108864)
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
    _refuse_misfits(TextSizes(**_frozen(result["text_config"])), VisionSizes(**_frozen(result["vision_config"])))
    for key in RELEASED_VLM:
        if key.endswith("_token_id"):
            if type(vlm[key]) is not int or not 0 <= vlm[key] < vocab_size:
                raise MonoError(f"{VLM_CONFIG_FILE}: {key} is {vlm[key]!r}", f"a word below {vocab_size}")
            result[key] = vlm[key]
    return result


def _frozen(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """As the dataclasses take them; the initial spread decides nothing in weights that are read."""
    sizes = {key: value for key, value in sizes.items() if key != "initializer_range"}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()}


def _refuse_misfits(text: TextSizes, vision: VisionSizes) -> None:
    """Sizes that are fine each and make no model together (MonoError)."""
    for fits, found in (
        (text.num_attention_heads % text.num_key_value_heads == 0, "heads that cannot share keys and values evenly"),
        (2 * sum(text.mrope_section) == text.head_dim, "rotary channels that do not make half a head"),
        (vision.hidden_size % vision.num_heads == 0, "a width that cannot be shared between heads"),
        (vision.hidden_size // vision.num_heads % 4 == 0, "heads whose width is no multiple of four"),
        (math.isqrt(vision.num_position_embeddings) ** 2 == vision.num_position_embeddings, "places in no square"),
        (all(index < vision.depth for index in vision.deepstack_visual_indexes), "layers shown that are not there"),
        (vision.out_hidden_size == text.hidden_size, "image features of another width than the language model's"),
    ):
        if not fits:
            raise MonoError(f"{VLM_CONFIG_FILE}: {found}", "the sizes of a Qwen3-VL", "download it again")
