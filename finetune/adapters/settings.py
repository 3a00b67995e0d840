"""What to adapt, as plain data: each setting and its default stand here once."""

from __future__ import annotations

from dataclasses import dataclass

from collector.common.arguments import Arguments, argument


@dataclass(frozen=True)
class LoraSettings(Arguments):
    """What to adapt."""

    lora_rank: int = argument(16, "rank of the LoRA matrices", 1, 4096)
    lora_alpha: int = argument(32, "the LoRA update is scaled by alpha / rank", 1, 65_536)
    lora_dropout: float = argument(0.0, "dropout in front of the LoRA matrices", 0.0, 0.99)
    adapt_language: bool = True  # adapt the language model.
    adapt_expert: bool = True  # adapt the action expert.
    # adapt the vision tower; without it image features are computed once, which is much faster.
    adapt_vision: bool = False
    train_projections: bool = True  # train the two action projections in full.

    def parts(self) -> list[str]:
        """Names of the parts this setting adapts, in table order."""
        wanted = {
            "language model": self.adapt_language,
            "action expert": self.adapt_expert,
            "vision tower": self.adapt_vision,
        }
        return [name for name, on in wanted.items() if on]
