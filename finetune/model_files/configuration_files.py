"""``config.json`` of a model folder, read as data, never as code.

The official file names Python classes in ``_target_`` strings. Here they are only compared with a list of
known names; nothing they say is ever imported. Sizes of the language and vision model, which the official
file does not hold (it names a backbone instead), come from ``vlm_config.json`` beside it, from an embedded
``vlm_config`` key, or, for the released model, from the published 8B sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from collector.common import text_files
from collector.common.errors import MonoError
from finetune.alpamayo.configuration import (
    CONFIG_FILE,
    DTYPES,
    MODEL_TYPES,
    RELEASED_BACKBONES,
    RELEASED_VLM,
    STAGE_1,
    VLM_CONFIG_FILE,
    ActionInProjConfig,
    ActionSpaceConfig,
    AlpamayoConfig,
    ExpertConfig,
    FlowConfig,
    FutureTokenizerConfig,
    HistoryTokenizerConfig,
    TrajectoryTokenIds,
    normalise_vlm,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_REASONING_TOKENS = 128
FLOW = "diffusion.flow_matching.FlowMatching"
SPACE = "action_space.UnicycleAccelCurvatureActionSpace"
IN_PROJ = "models.action_in_proj.PerWaypointActionInProjV2"
FUTURE = "action_space.discrete_action_space.DiscreteTrajectoryTokenizer"
HISTORY = "models.delta_tokenizer.DeltaTrajectoryTokenizer"
LINEAR = "torch.nn.Linear"

# Keys that appear in released files and change nothing here.
_INERT = {"_recursive_", "x_dims", "in_dims", "out_dim", "train_ignore_guidance_rate", "inference_guidance_weight"}

# Whole numbers that stand in the file and in the configuration under one name.
NUMBERS = (
    "vocab_size", "traj_token_start_idx", "traj_vocab_size", "tokens_per_history_traj", "tokens_per_future_traj",
    "min_pixels", "max_pixels",
)  # fmt: skip

_Block = TypeVar("_Block", bound="DataclassInstance")


def _checked_target(block: Mapping[str, Any], name: str, target: str, where: str) -> None:
    allowed = [target] if target == LINEAR else [f"{prefix}.{target}" for prefix in MODEL_TYPES]
    found = block.get("_target_")
    if found not in allowed:
        what, expected = f"{where}: {name} has _target_ {found!r}", "one of " + ", ".join(allowed)
        raise MonoError(what, expected, "use a config.json of Alpamayo 1 or 1.5; other classes are never imported")


def _parse_block(raw: Mapping[str, Any], name: str, target: str, kind: type[_Block], where: str) -> _Block:
    block = raw.get(name)
    if not isinstance(block, Mapping):
        raise MonoError(f"{where}: no block {name!r}", "a block with a _target_", "use a complete config.json")
    _checked_target(block, name, target, where)
    known = {f.name for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in block.items():
        if key == "_target_" or key in _INERT:
            continue
        if key not in known:
            raise MonoError(f"{where}: {name} has the unknown key {key!r}", "keys " + ", ".join(sorted(known)))
        values[key] = tuple(value) if isinstance(value, list) else value
        if key == "action_space_cfg":
            values[key] = _parse_block(block, key, SPACE, ActionSpaceConfig, where)
    return kind(**values)


def _parse_plain(raw: Mapping[str, Any], name: str, kind: type[_Block], where: str) -> _Block:
    block = raw.get(name)
    known = {f.name for f in fields(kind)}
    if not isinstance(block, Mapping) or not known <= set(block):
        raise MonoError(f"{where}: {name} is {block!r}", "a mapping with " + ", ".join(sorted(known)))
    return kind(**{key: block[key] for key in known})


def parse_config(
    raw: Mapping[str, Any], vlm: Mapping[str, Any] | None = None, where: str = CONFIG_FILE
) -> AlpamayoConfig:
    """Turn the content of ``config.json`` (and of ``vlm_config.json``) into a configuration; errors name ``where``.

    Without ``vlm``, sizes come from ``vlm_config`` in ``raw``, else from the name of the backbone.

    Raises:
        MonoError: another kind of model, a foreign ``_target_``, an unknown or missing key, unknown backbone sizes, or
            a size that no model has.
    """
    try:
        return _parsed(raw, vlm, where)
    except MonoError as error:
        if where in error.found:
            raise
        raise MonoError(f"{where}: {error.found}", error.expected, "download the folder again") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{where} (or {VLM_CONFIG_FILE} beside it) does not have the shape of a configuration"
        raise MonoError(f"{what}: {type(error).__name__} {error}", "the official keys", "download it again") from error


def _parsed(raw: Mapping[str, Any], vlm: Mapping[str, Any] | None, where: str) -> AlpamayoConfig:
    if raw.get("model_type") == STAGE_1:
        what = f"{where} is that of a stage-1 checkpoint ({STAGE_1}), which has no action expert"
        expected = "a whole model: " + " or ".join(MODEL_TYPES)
        raise MonoError(what, expected, "train stage 2 first, or choose another --model")
    dtype = str(raw.get("dtype") or raw.get("model_dtype") or "bfloat16").replace("torch.", "")
    for key, found, known in (("model_type", raw.get("model_type"), MODEL_TYPES), ("dtype", dtype, DTYPES)):
        if found not in known:
            what = f"{where}: {key} is {found!r}"
            raise MonoError(what, "one of " + ", ".join(known), "choose a folder of Alpamayo 1 or 1.5")
    if "action_out_proj_cfg" in raw:
        _checked_target(raw["action_out_proj_cfg"], "action_out_proj_cfg", LINEAR, where)
    missing = [key for key in NUMBERS if not isinstance(raw.get(key), int)]
    if missing:
        raise MonoError(f"{where}: no whole number for {', '.join(missing)}", "the official keys")
    vlm = _vlm_sizes(raw, where) if vlm is None else vlm
    # What the expert's block leaves open is as in the language model.
    expert = {**vlm["text_config"], **{k: v for k, v in dict(raw.get("expert_cfg") or {}).items() if v is not None}}
    config = AlpamayoConfig(
        vlm=normalise_vlm(vlm, raw["vocab_size"]),
        expert=ExpertConfig(**{f.name: expert[f.name] for f in fields(ExpertConfig)}),
        action_space=_parse_block(raw, "action_space_cfg", SPACE, ActionSpaceConfig, where),
        action_in_proj=_parse_block(raw, "action_in_proj_cfg", IN_PROJ, ActionInProjConfig, where),
        flow=_parse_block(raw, "diffusion_cfg", FLOW, FlowConfig, where),
        future_tokenizer=_parse_block(raw, "traj_tokenizer_cfg", FUTURE, FutureTokenizerConfig, where),
        history_tokenizer=_parse_block(raw, "hist_traj_tokenizer_cfg", HISTORY, HistoryTokenizerConfig, where),
        token_ids=_parse_plain(raw, "traj_token_ids", TrajectoryTokenIds, where),
        dtype=dtype,
        model_type=raw["model_type"],
        raw=dict(raw),
        **{key: raw[key] for key in NUMBERS},
    )
    if config.flow.int_method != "euler":
        raise MonoError(f"{where}: int_method is {config.flow.int_method!r}", "euler")
    if config.history_tokenizer.predict_yaw:
        raise MonoError(f"{where}: the history tokenizer predicts yaw", "predict_yaw false, as released")
    if config.vlm["text_config"]["head_dim"] != config.expert.head_dim:
        raise MonoError(
            f"{where}: head_dim is {config.expert.head_dim} in the expert, "
            f"{config.vlm['text_config']['head_dim']} in the language model",
            "equal head_dim, since both share one key/value cache",
        )
    return config


def _vlm_sizes(raw: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Sizes of the vision-language model that ``config.json`` holds or whose backbone it names."""
    if raw.get("vlm_config") is None and raw.get("vlm_name_or_path") not in RELEASED_BACKBONES:
        found = f"{where}: the sizes of backbone {raw.get('vlm_name_or_path')!r} are unknown"
        expected = f"a {VLM_CONFIG_FILE} beside it, a vlm_config key, or one of " + ", ".join(RELEASED_BACKBONES)
        raise MonoError(found, expected, f"put the backbone's config.json there as {VLM_CONFIG_FILE}")
    sizes: Mapping[str, Any] = raw.get("vlm_config") or RELEASED_VLM
    return sizes


def read_config(folder: Path | str) -> AlpamayoConfig:
    """Read ``config.json`` (and ``vlm_config.json`` where present) of a model folder.

    Raises:
        MonoError: absent or malformed files, see :func:`parse_config`.
    """
    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file() and (folder / "adapter_config.json").is_file():
        found = f"{folder} is an adapter, not a model"
        raise MonoError(found, "the base it was trained on", "give the base as --model and this folder as --adapter")
    raw = read_json(folder / CONFIG_FILE)
    vlm_file = folder / VLM_CONFIG_FILE
    return parse_config(raw, read_json(vlm_file) if vlm_file.exists() else None, str(folder / CONFIG_FILE))


def read_json(path: Path, do: str = "download or write it again") -> dict[str, Any]:
    """The object that a JSON file holds (MonoError: the file is absent, no JSON, or holds something else)."""
    if not path.is_file():
        raise MonoError(f"no file {path}", "a model folder in the official layout", "check --model")
    return text_files.read_json(path, do)


def official_vlm(config: AlpamayoConfig) -> dict[str, Any]:
    """``vlm_config.json`` as Qwen3-VL's own ``config.json`` is spelled: transformers' ``Qwen3VLConfig`` reads it.

    Version 0.1 wrote ``mrope_section`` beside the sizes, where only :func:`parse_config` looks for it.
    """
    text = dict(config.vlm["text_config"])
    text["rope_scaling"] = {
        "mrope_interleaved": True, "mrope_section": list(text.pop("mrope_section")), "rope_type": "default",
    }  # fmt: skip
    return {
        **config.vlm,
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": {**text, "model_type": "qwen3_vl_text"},
        "tie_word_embeddings": False,
        "vision_config": {**config.vlm["vision_config"], "model_type": "qwen3_vl"},
    }


def reasoning_room(folder: Path | None) -> int:
    """Longest reasoning a model folder asks for: one that babbles must not keep its plan waiting.

    Raises:
        MonoError: a ``generation_config.json`` without a usable number.
    """
    path = folder / "generation_config.json" if folder else None
    if path is None or not path.is_file():
        return MAX_REASONING_TOKENS
    room = read_json(path, "correct or remove it").get("max_new_tokens", MAX_REASONING_TOKENS)
    if not isinstance(room, int) or room < 2:
        raise MonoError(f"{path}: max_new_tokens is {room!r}", "a whole number of at least 2", "correct or remove it")
    return room
