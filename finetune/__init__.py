"""Alpamayo-R1 and its adapters: the model, its losses, training and open-loop evaluation."""

from pathlib import Path

from collector.common.start import begin

begin()

# The tiny base shipped with this package, in the official layout.
TINY_BASE = Path(__file__).resolve().parent / "tiny_base"
# An adapter of it that is steered by words, for those who have no card to train one on (its README says how it was).
TINY_STEERED = TINY_BASE.parent / "tiny_steered"
