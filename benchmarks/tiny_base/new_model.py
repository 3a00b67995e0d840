"""A model with random weights, to begin a training with."""

from __future__ import annotations

from dataclasses import replace

import torch

from finetune.alpamayo.configuration import AlpamayoConfig
from finetune.alpamayo.model import AlpamayoR1
from finetune.checkpoint import LoadedModel
from finetune.processing.images import ImageSettings
from finetune.processing.processor import Processor
from finetune.processing.tokenizer import Tokenizer


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
    processor = Processor(config, tokenizer, images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AlpamayoR1(config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return LoadedModel(model.to(device).eval(), processor, config)


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
