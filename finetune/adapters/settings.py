"""What to adapt, as plain data: each setting and its default stand here once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from collector.common.arguments import Arguments, argument
from collector.common.errors import MonoError
from finetune.adapters.folder import adapter_facts, check_belongs, check_whole


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

    def check_start(self, folder: Path, base: Path | None = None, cameras: str | None = None) -> None:
        """Refuse an adapter from which a training with these settings cannot go on.

        Raises:
            MonoError: not an adapter, damaged, or of another rank, alpha, base or camera mode.
        """
        facts, rank, alpha = adapter_facts(folder), self.lora_rank, self.lora_alpha
        check_whole(folder)
        if cameras is not None and facts.cameras not in ("", cameras):
            found = f"the adapter {folder} was trained for the cameras {facts.cameras!r}"
            raise MonoError(found, f"{cameras!r}, as this run", f"add --cameras {facts.cameras}")
        check_belongs(facts, base)
        if (facts.rank, facts.alpha, facts.scale) != (rank, alpha, alpha / rank):
            found = f"the adapter {folder} has rank {facts.rank}, alpha {facts.alpha:g} and a scale of {facts.scale:g}"
            expected = f"rank {rank}, alpha {alpha:g} and a scale of {alpha / rank:g}, as this run"
            do = f"give --lora_rank {facts.rank} --lora_alpha {facts.alpha:g}"
            if facts.scale != facts.alpha / facts.rank:
                do = "begin with an adapter that was trained without rsLoRA"
            raise MonoError(found, expected, do)
