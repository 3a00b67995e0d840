"""A build's count of where every frame went."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from collector.dataset.sample import Sample

PAIRED = "less other futures of the same frames"


@dataclass
class BuildReport:
    """Where every frame went."""

    seen: int = 0  # camera messages in the bags
    kept: int = 0  # samples in `metadata.jsonl`
    quarantined: int = 0  # those whose text and path disagree
    rejected: Counter[str] = field(default_factory=Counter)  # the rest, by reason
    labels: Counter[str] = field(default_factory=Counter)  # of the kept samples
    splits: Counter[str] = field(default_factory=Counter)  # of the kept samples
    paired: int = 0  # other futures of frames, counted above beside the frames' own
    manners: Counter[str] = field(default_factory=Counter)  # of the kept samples that say one
    claims: Counter[str] = field(default_factory=Counter)  # of their places and paces
    breaks: dict[str, str] = field(default_factory=dict)  # bag -> why it breaks off; what lies before is used
    _notes: dict[tuple[str, str], str] = field(default_factory=dict)  # by bag and subject, the first sentence

    def keep(self, sample: Sample, change: int = 1) -> None:
        """Count one frame in."""
        self.kept += change
        self.labels[sample.curve.label] += change
        self.splits[sample.split] += change
        if sample.manner is not None:
            self.manners[sample.manner] += change
            said = sample.claim.position, sample.claim.pace
            self.claims.update({claim: change for claim in said if claim not in (None, "none")})

    def keep_pair(self, sample: Sample) -> None:
        """Count in another future of a frame that is in."""
        self.paired += 1
        self.keep(sample)

    def reject(self, reason: str, frames: int = 1) -> None:
        """Count frames out."""
        self.rejected[reason] += frames

    def take_back(self, sample: Sample, reason: str) -> None:
        """Count a sample out that had been counted in."""
        self.keep(sample, -1)
        self.reject(reason)

    def note_break(self, bag: str, why: str) -> None:
        """Remember why a bag could not be read to its end (empty: it could)."""
        if why:
            self.breaks.setdefault(bag, why)

    def note(self, bag: str, subject: str, sentence: str = "") -> None:
        """Keep the first sentence about a subject (itself where it is one) of a bag, to be told at the end."""
        self._notes.setdefault((bag, subject), sentence or subject)

    @property
    def notes(self) -> list[str]:
        """What was found and tolerated, or why frames were refused, one line each."""
        return [f"{bag}: {sentence}" for (bag, _), sentence in self._notes.items()]

    def counts(self) -> dict[str, Any]:
        """All of it as plain values, in an order that does not depend on what came first."""
        return {
            name: dict(sorted(value.items())) if isinstance(value, dict) else value
            for name, value in vars(self).items()
            if not name.startswith("_") and (value or name not in ("paired", "manners", "claims"))
        }

    def check_sum(self) -> None:
        """Raise if a frame was lost or counted twice; that would be a fault of ours."""
        total = self.kept + self.quarantined + sum(self.rejected.values())
        if total != self.seen + self.paired:
            raise AssertionError(f"{self.seen} frames seen and {self.paired} futures added, {total} accounted for")

    def table(self) -> str:
        """The counts for a terminal; they add up to the frames seen."""
        rows = [("kept", self.kept), ("quarantined (text and path disagree)", self.quarantined)]
        rows += [(f"rejected: {reason}", count) for reason, count in sorted(self.rejected.items())]
        if self.paired:
            rows.append((PAIRED, -self.paired))
        rows.append(("frames seen", self.seen))
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {count:>8}" for name, count in rows]
        lines.insert(-1, "-" * (width + 10))
        if self.breaks:
            lines.append(f"{'bags that break off':<{width}}  {len(self.breaks):>8}")
        spread = {"labels": self.labels, "splits": self.splits, "manners": self.manners, "claims": self.claims}
        for title, counts in spread.items():
            if not counts and title in ("manners", "claims"):
                continue
            lines.append(f"{title}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
        return "\n".join(lines)
