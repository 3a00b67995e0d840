"""What to adapt, as plain data: each setting and its default stand here once."""

from __future__ import annotations

from dataclasses import dataclass

from collector.common.errors import MonoError


@dataclass(frozen=True)
class LoraSettings:
    """What to adapt.

    Attributes:
        rank, alpha, dropout: of the LoRA matrices; the update is scaled by alpha / rank.
        language_model, action_expert, vision_tower: parts that get LoRA on all their linear layers.
        action_projections: train ``action_in_proj`` and ``action_out_proj`` in full.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    language_model: bool = True
    action_expert: bool = True
    vision_tower: bool = False
    action_projections: bool = True

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1:
            raise MonoError(
                f"LoRA rank {self.rank} and alpha {self.alpha}", "both at least 1", "use --lora_rank 16 --lora_alpha 32"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise MonoError(f"LoRA dropout {self.dropout}", "0 <= dropout < 1", "leave it at 0")

    def parts(self) -> list[str]:
        """Names of the parts this setting adapts, in table order."""
        wanted = {
            "language model": self.language_model,
            "action expert": self.action_expert,
            "vision tower": self.vision_tower,
        }
        return [name for name, on in wanted.items() if on]
