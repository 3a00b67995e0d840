"""The tiny Alpamayo-R1: the architecture of the released model at a size two cores can adapt.

Sizes, tokenizer and image crop live here; training it is :mod:`benchmarks.tiny_base.train`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from finetune.alpamayo.configuration import ActionInProjConfig, AlpamayoConfig, ExpertConfig, normalise_vlm
from finetune.processing.images import ImageSettings
from finetune.processing.processor import ASK_FUTURE, ASK_REASONING, SYSTEM
from finetune.processing.tokenizer import Tokenizer

QWEN_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# The kart's camera looks along the road from 0.7 m: what lies above the horizon says nothing about the course,
# and a distant curve is a few rows high. So the crop keeps the road and is squeezed in width only.
IMAGES = ImageSettings(
    min_pixels=320 * 160,
    max_pixels=320 * 160,
    crop_top=0.45,
    crop_bottom=0.05,
    resize_width_px=320,
    resize_height_px=160,
)

VISION_SIZES: dict[str, Any] = {
    "depth": 4,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_heads": 4,
    "in_channels": 3,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 128,
    "num_position_embeddings": 256,
    "deepstack_visual_indexes": [0, 1, 2],
    "hidden_act": "gelu_pytorch_tanh",
}
TEXT_SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "rope_theta": 5e6,
    "mrope_section": [6, 5, 5],
}
EXPERT_SIZES = ExpertConfig(hidden_size=128, intermediate_size=384, num_attention_heads=4, head_dim=32)
# Narrower trunks do not learn to read the aliased Fourier features of noise, which then limits everything.
ACTION_IN_PROJ = ActionInProjConfig(hidden_size=256)


# What the prompt says around image and history; as single tokens its words cost a third of what letters cost.
PROMPT_WORDS = f"system\nuser\nassistant\n{SYSTEM}\n{ASK_REASONING}, then {ASK_FUTURE}.\n"


def build_tokenizer(corpus: Iterable[str], merges: int = 600) -> Tokenizer:
    """A byte-level BPE over a corpus, extended like the released one.

    Ids: 256 bytes and the merges, Qwen's special words, ``<i0>`` ... ``<i3999>``, Alpamayo's special words.

    Args:
        corpus: texts whose words should become single tokens, such as reasonings and :data:`PROMPT_WORDS`.
        merges: merged tokens beyond the bytes, at most; fewer words make fewer.
    """
    import tokenizers

    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=256 + merges,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        special_tokens=[],
    )
    backend.train_from_iterator(corpus, trainer)
    specials = [tokenizers.AddedToken(word, normalized=False, special=True) for word in QWEN_SPECIALS]
    backend.add_special_tokens(specials)
    return Tokenizer(backend).extend()


def tiny_config(tokenizer: Tokenizer) -> AlpamayoConfig:
    """The configuration of a tiny model around a tokenizer made by :func:`build_tokenizer`."""
    vlm = {
        "text_config": {**TEXT_SIZES, "vocab_size": len(tokenizer)},
        "vision_config": VISION_SIZES,
        **{
            f"{name}_token_id": tokenizer.id_of(word)
            for name, word in (
                ("image", "<|image_pad|>"),
                ("video", "<|video_pad|>"),
                ("vision_start", "<|vision_start|>"),
                ("vision_end", "<|vision_end|>"),
            )
        },
    }
    return AlpamayoConfig(
        vlm=normalise_vlm(vlm, len(tokenizer)),
        expert=EXPERT_SIZES,
        action_in_proj=ACTION_IN_PROJ,
        token_ids=tokenizer.trajectory_token_ids(),
        vocab_size=len(tokenizer),
        traj_token_start_idx=tokenizer.id_of("<i0>"),
        min_pixels=IMAGES.min_pixels,
        max_pixels=IMAGES.max_pixels,
        dtype="bfloat16",
    )
