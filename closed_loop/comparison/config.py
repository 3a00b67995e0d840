"""What a comparison is asked for, and the drivers it makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from closed_loop.comparison.instructed import Script, script_words
from closed_loop.comparison.rollout import RolloutConfig
from closed_loop.comparison.runs import BEFORE_AFTER, VARIANTS, RunSettings, Variant
from closed_loop.control.controller import ControllerConfig
from closed_loop.control.driver import DriverConfig
from closed_loop.control.faults import Faults
from closed_loop.simulator.expert import ExpertConfig
from closed_loop.simulator.modes import ModeName
from collector.common.arguments import MOST_SEED, OUT, Arguments, argument, same_as
from collector.common.errors import MonoError
from collector.reasoning.instructions import read_instruction
from collector.ros.parameters import RoadParameters, Rules, SimulatorParameters
from collector.vehicle.model import GivenGain, read_vehicle, vehicle_named
from finetune import TINY_BASE
from finetune.adapters.folder import adapter_facts
from finetune.policy import Engine, Pack, Policy, PolicySettings

DEFAULTS = RunSettings()


@dataclass(frozen=True)
class CompareConfig(Arguments):
    """Drive base, adapter and expert on courses nobody trained on, and say how far each strays on curves."""

    model: Path = TINY_BASE  # base model, a folder in the official layout or its id on the Hugging Face hub.
    adapter: Path | None = None  # adapter folder (what finetune wrote to OUT/adapter).
    # by name, such as city, city-mirror or random:9001, or course files; never ones that were trained on.
    courses: tuple[str, ...] = ("city", "city-mirror", "random:9001")
    starts: int = argument(DEFAULTS.starts, "starts per course, evenly spread over the lap", 1, 10_000)
    laps: float = argument(RolloutConfig.laps, "continuous laps from each start", 0.001, 1000.0)
    # rows of the table, such as base-mono and adapter-mono (a wrong one lists them all); none given: base-four,
    # base-padded, base-mono, expert, and with an adapter the base and the adapter with the cameras it was trained for.
    variants: tuple[str, ...] = ()
    # run folder; finished runs in it are not driven again.
    out: Annotated[Path, OUT] = Path("runs/compare")
    # line the deviation is measured from (a raceline or centreline file); empty is each course's own centreline. A file
    # fits one course only.
    reference: str = ""
    device: str = PolicySettings.device  # torch device.
    jobs: int = argument(0, "runs driven side by side; 0 takes one per CPU core (one on a GPU)", 0, 1024)
    replan_s: float = same_as(DriverConfig, "replan_s")
    latency_s: tuple[float, ...] = argument(
        (DEFAULTS.rollout.faults.latency_s,),
        "simulated seconds from a frame to the use of its plan; of several, such as 0.15,0.3,0.6, the first is that of "
        "the table, and all are set against each other",
        0.0,
        6.3,
    )
    jitter_s: float = argument(0.0, "each plan comes up to so many simulated seconds later still, drawn", 0.0, 3.0)
    flow_steps: int = same_as(PolicySettings, "flow_steps")
    noise_temperature: float = same_as(PolicySettings, "noise_temperature")
    reasoning: bool = PolicySettings.reasoning  # think before driving.
    engine: Engine = PolicySettings.engine  # eager is the reference, word by word.
    samples: int = same_as(PolicySettings, "samples")
    reasoning_hz: float = same_as(PolicySettings, "reasoning_hz")
    # nf4 packs the language model in four bits, for cards of 12 to 16 GB (needs the extra [gpu]).
    quantised: Pack = PolicySettings.quantised
    max_speed_mps: float = argument(
        0.0, "the driver is held to this speed, and the expert drives no faster; 0 leaves the model free", 0.0, 20.0
    )
    max_off_track: int = argument(
        RolloutConfig.max_off_track,
        "a drive ends at this many off-track events; the lap stays unfinished in the table",
        1,
        1_000_000,
    )
    # by what the driver drives: e2e by camera and wheels alone, free by the localisation's poses too.
    rules: Rules = RolloutConfig.rules
    # dev, or e2e for a simulated kart as in AWSIM's end-to-end sessions (see simulate).
    mode: ModeName = RunSettings.mode
    vehicle: str = same_as(RoadParameters, "vehicle")
    simulated_vehicle: str = same_as(SimulatorParameters, "simulated_vehicle")
    steering_gain: float = same_as(GivenGain, "steering_gain")
    seed: int = argument(
        DEFAULTS.seed, "of scenery, noise and everything drawn; the same for all variants", 0, MOST_SEED
    )
    # what the kart is told while it drives once more from each start, such as 'keep left' slower; "all" for a list of
    # two dozen. How far it obeys is a table of its own.
    instructions: tuple[str, ...] = ()
    hold_s: float = argument(8.0, "simulated seconds for which each of them holds", 2.0, 3600.0)
    pause_s: float = argument(4.0, "simulated seconds of usual driving between them", 0.0, 60.0)
    fresh: bool = False  # drive finished runs again.

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown:
            raise MonoError(f"variants {', '.join(unknown)}", "some of " + ", ".join(VARIANTS), "check the spelling")
        if self.adapter is None and any(VARIANTS[name].adapted for name in self.variants):
            raise MonoError("a variant with the adapter, but no adapter", "its folder", "add --adapter FOLDER")
        if not self.courses:
            raise MonoError("no course to drive", "at least one", "name one with --courses")
        if len(set(self.latency_s)) < max(1, len(self.latency_s)):
            found = "the latencies " + ", ".join(f"{each:g}" for each in self.latency_s)
            raise MonoError(found, "at least one, and each once", "--latency_s 0,0.15,0.6")
        if usual := [each for each in self.script_words if read_instruction(each).is_usual]:
            found = f"the instruction {usual[0]!r}, which asks for nothing"
            raise MonoError(found, "something to do", "leave it out: between instructions nothing is asked for")
        if self.instructions and not self.reasoning:
            raise MonoError("instructions together with --no-reasoning", "a model that reasons", "leave out either")
        if self.reference and len(self.courses) != 1:
            raise MonoError("one reference for several courses", "one course", "compare course by course")

    @property
    def script_words(self) -> tuple[str, ...]:
        """Every instruction to be given."""
        return script_words(self.instructions)

    @property
    def chosen(self) -> tuple[Variant, ...]:
        """The variants to drive, in the table's order."""
        wanted = self.variants or ("base-four", "base-padded", "base-mono", "expert")
        if self.adapter and not self.variants:
            cameras = adapter_facts(self.adapter).cameras or PolicySettings.cameras
            wanted += tuple(
                each.name for each in VARIANTS.values() if each.role in BEFORE_AFTER and each.cameras == cameras
            )
        return tuple(variant for name, variant in VARIANTS.items() if name in wanted)


def settings_of(config: CompareConfig, latency_s: float | None) -> RunSettings:
    """What decides a run besides its driver, at one of the latencies; None where no plan can be late."""
    limit = config.max_speed_mps or None
    vehicle = vehicle_named(config.vehicle, config.steering_gain)
    moved = config.simulated_vehicle or config.vehicle
    rollout = RolloutConfig(
        laps=config.laps,
        driver=DriverConfig(replan_s=config.replan_s, controller=ControllerConfig.of(vehicle, limit)),
        rules=config.rules,
        vehicle=vehicle,
        faults=DEFAULTS.rollout.faults if latency_s is None else Faults(latency_s=latency_s, jitter_s=config.jitter_s),
        max_off_track=config.max_off_track,
    )
    expert = ExpertConfig(max_speed_mps=limit) if limit else ExpertConfig()
    simulated = read_vehicle(moved) if moved else None
    words = () if latency_s is None else config.script_words
    script = Script(words, config.hold_s, config.pause_s) if words else None
    return RunSettings(config.starts, config.reference, config.seed, rollout, expert, config.mode, simulated, script)


# What decides a plan beside weights, code, cameras and seed.
POLICY_OPTIONS = ("flow_steps", "noise_temperature", "reasoning", "engine", "samples", "reasoning_hz", "quantised")


def make_policy(config: CompareConfig, variant: Variant) -> Policy | None:
    """The driver of a variant; None is the expert."""
    if variant.role == "expert":
        return None
    from finetune.alpamayo_policy import AlpamayoPolicy

    return AlpamayoPolicy(
        config.model,
        adapter=config.adapter if variant.adapted else None,
        cameras=variant.cameras,
        seed=config.seed,
        device=config.device,
        **{name: getattr(config, name) for name in POLICY_OPTIONS},
    )


Policies = Callable[[CompareConfig, Variant], Policy | None]
