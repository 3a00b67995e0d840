"""A model to begin a training with: random weights, or those of an earlier base."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from finetune.alpamayo.configuration import ALPAMAYO_R1, VLM_CONFIG_FILE, AlpamayoConfig
from finetune.alpamayo.model import AlpamayoR1
from finetune.checkpoint import LoadedModel
from finetune.model_files.configuration_files import FLOW, FUTURE, HISTORY, IN_PROJ, LINEAR, NUMBERS, SPACE
from finetune.processing.images import ImageSettings
from finetune.processing.processor import Processor
from finetune.processing.tokenizer import Tokenizer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def new_model(
    config: AlpamayoConfig,
    tokenizer: Tokenizer,
    *,
    images: ImageSettings | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """A model with random weights.

    Args:
        config: sizes; vocabulary ids are taken from the tokenizer.
        tokenizer: any byte-level BPE with Qwen's special words; extended with Alpamayo's.
        images: crop and size; None is the official way.
        seed: of the weights.
    """
    config = fit_vocabulary(config, tokenizer)
    config = replace(config, raw=official_config(config))
    processor = Processor(config, tokenizer, images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AlpamayoR1(config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return LoadedModel(model.to(device).eval(), processor, config)


def adopt_weights(young: LoadedModel, old: LoadedModel) -> None:
    """Take over the weights of a base of another vocabulary: a word that it spelled gets the mean of its pieces."""
    state = old.model.state_dict()
    words, pieces = young.processor.tokenizer, old.processor.tokenizer
    for name in ("vlm.model.language_model.embed_tokens.weight", "vlm.lm_head.weight"):
        table = young.model.state_dict()[name].clone()
        for index in range(len(words)):
            # The first 256 are single bytes, which both vocabularies number alike and which are no text by themselves.
            ids = [index] if index < 256 else pieces.encode(words.decode([index], keep_special=True))
            table[index] = state[name][ids].mean(0)
        state[name] = table
    young.model.load_state_dict(state)


def fit_vocabulary(config: AlpamayoConfig, tokenizer: Tokenizer) -> AlpamayoConfig:
    """The configuration with every vocabulary id and size of an (extended) tokenizer."""
    bins = config.future_tokenizer.num_bins + config.history_tokenizer.num_bins
    tokenizer.extend(bins, config.model_type)
    vlm = {**config.vlm, "text_config": {**config.vlm["text_config"], "vocab_size": len(tokenizer)}}
    for key, word in (
        ("image_token_id", "<|image_pad|>"),
        ("video_token_id", "<|video_pad|>"),
        ("vision_start_token_id", "<|vision_start|>"),
        ("vision_end_token_id", "<|vision_end|>"),
    ):
        vlm[key] = tokenizer.id_of(word)
    return replace(
        config,
        vlm=vlm,
        vocab_size=len(tokenizer),
        traj_vocab_size=bins,
        traj_token_start_idx=tokenizer.id_of("<i0>"),
        token_ids=tokenizer.trajectory_token_ids(),
        raw={},
    )


def official_config(config: AlpamayoConfig) -> dict[str, Any]:
    """The official ``config.json`` of a configuration made here."""

    def block(target: str, values: DataclassInstance) -> dict[str, Any]:
        return {"_target_": f"{config.model_type}.{target}", **asdict(values)}

    future = block(FUTURE, config.future_tokenizer)
    future["action_space_cfg"] = block(SPACE, config.future_tokenizer.action_space_cfg)
    return {
        **{key: getattr(config, key) for key in NUMBERS},
        "architectures": ["AlpamayoR1" if config.model_type == ALPAMAYO_R1 else "Alpamayo1_5"],
        "model_type": config.model_type,
        "dtype": config.dtype,
        "model_dtype": config.dtype,
        "attn_implementation": "sdpa",
        "vlm_name_or_path": VLM_CONFIG_FILE,
        "vlm_backend": "qwenvl3",
        "traj_token_ids": asdict(config.token_ids),
        "add_special_tokens": True,
        "keep_same_dtype": True,
        "expert_non_causal_attention": True,
        "expert_cfg": asdict(config.expert),
        "diffusion_cfg": block(FLOW, config.flow),
        "action_space_cfg": block(SPACE, config.action_space),
        "action_in_proj_cfg": block(IN_PROJ, config.action_in_proj),
        "action_out_proj_cfg": {"_target_": LINEAR},
        "traj_tokenizer_cfg": {**future, "_recursive_": False},
        "hist_traj_tokenizer_cfg": {
            "_target_": f"{config.model_type}.{HISTORY}",
            "num_bins": config.history_tokenizer.num_bins,
        },
    }
