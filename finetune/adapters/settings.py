"""What to adapt, as plain data: each setting and its default stand here once."""

from __future__ import annotations

from dataclasses import dataclass

from collector.common.errors import MonoError


@dataclass(frozen=True)
class LoraSettings:
    """What to adapt."""

    lora_rank: int = 16  # rank of the LoRA matrices.
    lora_alpha: int = 32  # the LoRA update is scaled by alpha / rank.
    lora_dropout: float = 0.0  # dropout in front of the LoRA matrices.
    adapt_language: bool = True  # adapt the language model.
    adapt_expert: bool = True  # adapt the action expert.
    # adapt the vision tower; without it image features are computed once, which is much faster.
    adapt_vision: bool = False
    train_projections: bool = True  # train the two action projections in full.

    def __post_init__(self) -> None:
        if self.lora_rank < 1 or self.lora_alpha < 1:
            found = f"LoRA rank {self.lora_rank} and alpha {self.lora_alpha}"
            raise MonoError(found, "both at least 1", "use --lora_rank 16 --lora_alpha 32")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise MonoError(f"LoRA dropout {self.lora_dropout}", "0 <= dropout < 1", "leave it at 0")

    def parts(self) -> list[str]:
        """Names of the parts this setting adapts, in table order."""
        wanted = {
            "language model": self.adapt_language,
            "action expert": self.adapt_expert,
            "vision tower": self.adapt_vision,
        }
        return [name for name, on in wanted.items() if on]
