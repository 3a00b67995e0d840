"""Alpamayo-R1: a vision-language model that thinks and an action expert that drives from its memory.

The expert is a narrower transformer with the same layers and key/value heads. Layer by layer it attends to the
language model's keys and values and to its own 64 waypoint tokens, which all see each other. Module names follow
the official checkpoint, so ``state_dict`` has its keys.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from collector.common.errors import MonoError
from finetune.alpamayo import flow_matching
from finetune.alpamayo.action_projection import ActionInProjection
from finetune.alpamayo.action_space import ActionSpace
from finetune.alpamayo.cache import Columns, PrefixCache, VisionFeatures
from finetune.alpamayo.configuration import AlpamayoConfig
from finetune.alpamayo.decoder import Decoder, additive_mask
from finetune.alpamayo.layers import forward_layers, run_layer
from finetune.alpamayo.packing import Packing
from finetune.alpamayo.rope import prefix_positions
from finetune.alpamayo.vision import all_equal, encode_equal_images

_WORDS_AT_ONCE = 128

__all__ = ["AlpamayoR1", "PrefixCache", "VisionFeatures"]


def text_config(sizes: dict[str, Any]) -> Any:
    """Text settings for transformers from plain sizes."""
    values = dict(sizes)
    rope = {
        "rope_type": "default",
        "rope_theta": float(values.pop("rope_theta")),
        "mrope_section": list(values.pop("mrope_section")),
        "mrope_interleaved": True,
    }
    config: Any = Qwen3VLTextConfig(**{**values, "rope_parameters": rope, "tie_word_embeddings": False})
    config._attn_implementation = "sdpa"
    return config


class AlpamayoR1(nn.Module):
    """The whole model.

    Rows of a batch are padded on the right. Shapes: B rows, K noise draws per row, L tokens, 64 waypoints.

    Args:
        config: sizes and constants.

    Attributes:
        checkpointed_layers: so many layers of the language model and of the expert are computed again in the backward
            pass instead of being remembered; see :func:`finetune.alpamayo.layers.forward_layers`.
    """

    def __init__(self, config: AlpamayoConfig) -> None:
        super().__init__()
        self.settings = config
        self.checkpointed_layers = 0
        self.body: Any = run_layer
        text = dict(config.vlm["text_config"])
        qwen: Any = Qwen3VLConfig(
            text_config=text_config(text).to_dict(),
            vision_config=dict(config.vlm["vision_config"]),
            tie_word_embeddings=False,
            **{k: v for k, v in config.vlm.items() if k.endswith("_token_id")},
        )
        for part in (qwen, qwen.text_config, qwen.vision_config):
            part._attn_implementation = "sdpa"
        self.vlm = Qwen3VLForConditionalGeneration(qwen)
        sizes = {**text, **vars(config.expert), "vocab_size": 1}
        self.expert = Qwen3VLTextModel(text_config(sizes))
        # The expert is fed embeddings of actions; the official checkpoint has no words for it.
        del self.expert.embed_tokens
        width = config.expert.hidden_size
        self.action_in_proj = ActionInProjection(config.action_in_proj, width)
        self.action_out_proj = nn.Linear(width, 2)
        self.action_space = ActionSpace(config.action_space)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.vlm.lm_head.weight.device
        return device

    # -- seeing and reading ------------------------------------------------------------------------------------

    def encode_images(self, pixel_values: Tensor, grid_thw: Tensor) -> VisionFeatures:
        """All images of a batch in one pass of the vision tower.

        Args:
            pixel_values: (P, 1536) patches.
            grid_thw: (n, 3) grids.
        """
        visual = self.vlm.model.visual
        if all_equal(grid_thw):
            return VisionFeatures(*encode_equal_images(visual, pixel_values, grid_thw))
        output = visual(pixel_values.to(visual.patch_embed.proj.weight.dtype), grid_thw=grid_thw)
        if isinstance(output, tuple):
            return VisionFeatures(output[0], list(output[1]))
        return VisionFeatures(output.pooler_output, list(output.deepstack_features))

    def run_prefix(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        vision: VisionFeatures,
        grid_thw: Tensor,
        packing: Packing | None = None,
    ) -> PrefixCache:
        """Read images and words; differentiable.

        Args:
            input_ids: (B, L), history bins inserted, padded on the right.
            attention_mask: (B, L), zero on padding.
            vision: features of all images, row after row.
            grid_thw: (n, 3) their grids.
            packing: which rows have their prompt in common, which is then read once; only where gradients are wanted.
                ``vision`` is then of the first of these rows each.

        Raises:
            MonoError: features, grids and placeholders do not match.
        """
        language = self.vlm.model.language_model
        image_id = self.settings.vlm["image_token_id"]
        merge = self.settings.vlm["vision_config"]["spatial_merge_size"]
        filled = attention_mask.bool()
        positions, following = prefix_positions(input_ids, attention_mask, grid_thw, image_id, merge)
        ids, places, there, mask = input_ids, positions, filled, None
        if packing is not None:
            ids, places, there = (packing.packed(each, filled) for each in (input_ids, positions, filled))
            mask = packing.mask(language.norm.weight.dtype)
        is_image = (ids == image_id) & there
        embeds = language.embed_tokens(ids)
        if len(vision.embeds) != int(is_image.sum()):
            raise MonoError(f"{len(vision.embeds)} image tokens", f"those of {len(grid_thw)} grids")
        embeds = embeds.masked_scatter(is_image[..., None], vision.embeds.to(embeds))
        deepstack = [layer.to(embeds) for layer in vision.deepstack]
        # Right padding needs no mask: a token never sees what follows it, and padded rows are not read.
        if torch.is_grad_enabled():
            hidden, columns = forward_layers(
                language,
                embeds,
                places,
                mask=mask,
                image_mask=is_image,
                checkpointed_layers=self.checkpointed_layers,
                body=self.body,
                deepstack=deepstack,
            )
            keys, values = map(tuple, zip(*columns, strict=True))
            if packing is not None:
                hidden, (keys, values) = (
                    packing.apart(hidden),
                    (tuple(map(packing.apart_heads, k)) for k in (keys, values)),
                )
        else:
            decoder, text = Decoder(language), language.config
            nothing = embeds.new_empty(len(embeds), text.num_key_value_heads, 0, text.head_dim)
            store = Columns([(nothing, nothing)] * text.num_hidden_layers, embeds.shape[1])
            images, rotary = is_image.flatten().nonzero()[:, 0], decoder.rotary(places, embeds)
            new = store.open(embeds.shape[1])
            hidden = decoder.run(embeds, rotary, new, causal=True, image_places=images, deepstack=deepstack)
            store.keep(embeds.shape[1])
            keys, values = store.tensors()
        visible, expert_position = self.expert_start(input_ids, filled, positions[0], following)
        return PrefixCache(
            keys=keys,
            values=values,
            filled=filled,
            visible=visible,
            next_position=following,
            expert_position=expert_position,
            hidden=hidden,
            input_ids=input_ids,
        )

    def expert_start(
        self, input_ids: Tensor, filled: Tensor, positions: Tensor, following: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Columns the expert sees (B, L) and its first rotary position (B,).

        That is everything up to a row's FIRST ``<|traj_future_start|>``; a row without one is seen to its end.
        """
        starts = (input_ids == self.settings.token_ids.future_start) & filled
        seen_before = starts.long().cumsum(-1) - starts.long()
        visible = filled & (seen_before == 0)
        first = starts.long().argmax(-1)
        at_start = positions.gather(1, first[:, None])[:, 0] + 1
        return visible, torch.where(starts.any(-1), at_start, following)

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary logits (..., V), float32."""
        logits: Tensor = self.vlm.lm_head(hidden).float()
        return logits

    def text_loss(self, prefix: PrefixCache, label_mask: Tensor) -> Tensor:
        """Mean cross-entropy per row (B,) over the tokens marked in ``label_mask`` (B, L); 0 for a row without any.

        Only marked tokens pass through the vocabulary matrix.
        """
        if prefix.hidden is None:
            raise MonoError("a prefix after decoding", "one from run_prefix")
        marked = label_mask[:, 1:].bool() & prefix.filled[:, 1:]
        hidden, words = prefix.hidden[:, :-1][marked], prefix.input_ids[:, 1:][marked]
        if self.checkpointed_layers and torch.is_grad_enabled():
            # 156,000 logits a word in float32: a few hundred words would weigh more than all layers' inputs.
            parts = zip(hidden.split(_WORDS_AT_ONCE), words.split(_WORDS_AT_ONCE), strict=False)
            losses = torch.cat([checkpoint(self._word_losses, *part, use_reentrant=False) for part in parts])
        else:
            losses = self._word_losses(hidden, words)
        rows = marked.nonzero()[:, 0]
        total = losses.new_zeros(len(prefix)).index_add(0, rows, losses)
        return total / marked.sum(-1).clamp(min=1)

    def _word_losses(self, hidden: Tensor, words: Tensor) -> Tensor:
        return functional.cross_entropy(self.text_logits(hidden), words, reduction="none")

    # -- driving -----------------------------------------------------------------------------------------------

    def velocity(self, prefix: PrefixCache, x_t: Tensor, t: Tensor) -> Tensor:
        """Predicted velocity of noisy actions.

        Args:
            prefix: of B rows.
            x_t: (B*K, 64, 2), the K draws of a row side by side.
            t: (B*K,) flow times.
        """
        positions, visible = self._expert_view(prefix, x_t)
        # Fully trained projections may be kept in more precision than the frozen expert between them.
        embeds = self.action_in_proj(x_t, t).to(self.expert.norm.weight.dtype)
        # Without an explicit mask transformers would make the waypoints causal.
        mask = torch.zeros(visible.shape, dtype=embeds.dtype, device=embeds.device)
        mask = mask.masked_fill(~visible, torch.finfo(embeds.dtype).min)
        hidden, _ = forward_layers(
            self.expert,
            embeds,
            positions,
            mask=mask[:, None, None].expand(-1, 1, x_t.shape[1], -1),
            past=prefix.columns,
            draws=self._draws(prefix, x_t),
            checkpointed_layers=self.checkpointed_layers,
            body=self.body,
        )
        return self._velocity_of(hidden)

    def flow_loss(
        self, prefix: PrefixCache, actions: Tensor, noise: Tensor, t: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Mean squared velocity error per row (B,); arguments as in :meth:`flow_loss_and_estimate`."""
        return self.flow_loss_and_estimate(prefix, actions, noise, t, weights)[0]

    def flow_loss_and_estimate(
        self, prefix: PrefixCache, actions: Tensor, noise: Tensor, t: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean squared velocity error per row (B,), and the actions (B, K, 64, 2) that each prediction leads to.

        Args:
            actions: (B, 64, 2) normalised.
            noise: (B, K, 64, 2); t: (B, K).
            weights: (64,) of the waypoints, mean 1; None is the released loss, all alike.
        """
        actions = actions.float()[:, None].expand_as(noise)
        x_t = flow_matching.interpolate(actions, noise, t)
        predicted = self.velocity(prefix, x_t.flatten(0, 1), t.flatten()).view_as(noise)
        error = (predicted - flow_matching.target_velocity(actions, noise)).square()
        if weights is not None:
            error = error * weights[:, None]
        # x_t lies on the straight line from noise to actions, so the rest of the way at this velocity ends at them.
        return error.mean(dim=(1, 2, 3)), x_t + (1.0 - t)[..., None, None] * predicted

    @torch.inference_mode()
    def sample_actions(self, prefix: PrefixCache, x0: Tensor, steps: int | None = None) -> Tensor:
        """Actions (B*K, 64, 2), float32, from initial noise of that shape."""
        draws, count = self._draws(prefix, x0), self.settings.flow.num_inference_steps if steps is None else steps
        positions, visible = self._expert_view(prefix, x0)
        like = self.expert.norm.weight
        decoder, store = Decoder(self.expert), Columns(prefix.columns, x0.shape[1], draws, like.dtype)
        rotary, mask = decoder.rotary(positions, like), additive_mask(visible[:, None], like.dtype)
        columns = store.open(x0.shape[1])

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            hidden = decoder.run(self.action_in_proj(x, t).to(like.dtype), rotary, columns, mask=mask)
            return self._velocity_of(hidden)

        return flow_matching.integrate(velocity, x0, count)

    def _draws(self, prefix: PrefixCache, x: Tensor) -> int:
        draws, rest = divmod(len(x), len(prefix))
        if rest or not draws:
            raise MonoError(f"{len(x)} noisy actions for {len(prefix)} prefixes", "a whole number per prefix")
        return draws

    def _expert_view(self, prefix: PrefixCache, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary positions (3, B*K, 64) of the waypoints, and the columns (B*K, L+64) they see."""
        draws, waypoints = self._draws(prefix, x_t), x_t.shape[1]
        steps = torch.arange(waypoints, device=x_t.device)
        positions = (prefix.expert_position[:, None] + steps).repeat_interleave(draws, 0).expand(3, -1, -1)
        return positions, functional.pad(prefix.visible, (0, waypoints), value=True).repeat_interleave(draws, 0)

    def _velocity_of(self, hidden: Tensor) -> Tensor:
        velocity: Tensor = self.action_out_proj(hidden.to(self.action_out_proj.weight.dtype)).float()
        return velocity
