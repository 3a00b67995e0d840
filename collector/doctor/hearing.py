"""The doctor on any topic: who publishes it, whether that can be heard (type and QoS), and how fast it comes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from collector.doctor.facts import Endpoint, RosFacts, Row, State, TopicFacts
from collector.ros.topics import CLOCK, FROM_SIMULATOR, ODOMETRY, TF_STATIC, Topic

PAUSED = 0.01  # simulated seconds per second below which time stands still
START_SIMULATOR = "start the simulator (row simulator)"
SLOW = 0.5  # of the nominal rate; localisations often run at little more
# Poses and mounts come from other nodes as well.
SIMULATORS_OWN = tuple(topic for topic in FROM_SIMULATOR if topic not in (ODOMETRY, TF_STATIC))


def has_simulator(ros: RosFacts) -> bool:
    """Whether anybody publishes any of the topics that are the simulator's own."""
    return any(ros.topics[topic.name].publishers for topic in SIMULATORS_OWN)


def fits(offered: Endpoint, asked: Endpoint | Topic) -> bool:
    """Whether a subscriber asking for this hears a publisher offering that (what is unknown counts as fitting)."""
    return not (
        (offered.reliability == "best_effort" and asked.reliability == "reliable")
        or (offered.durability == "volatile" and asked.durability == "transient_local")
    )


def heard_row(  # noqa: C901, PLR0911 - one return for each thing that may be wrong, in the order of cause
    name: str, topic: Topic, ros: RosFacts, bad: State, absent: str, silent: str = "", slow: float = SLOW
) -> Row:
    """The row of a topic that a run will subscribe to, by the first thing that is wrong: the rest follows from that.

    A missing topic makes it ``bad``. ``absent`` is the cure where nobody publishes it, ``silent`` where nothing comes
    all the same; below the share ``slow`` of the nominal rate there is a warning.
    """
    topic, facts = ros.family.topic(topic), ros.topics[topic.name]
    right = [offer for offer in facts.publishers if offer.type == topic.type]
    audible = [offer for offer in right if fits(offer, topic)]

    def row(state: State, found: str, cure: str = "") -> Row:
        return Row(name, state, found, cure, topic.name)

    if not facts.publishers:
        return row(bad, "nobody publishes it", absent if has_simulator(ros) else START_SIMULATOR)
    if not right:
        found = f"published as {types(facts.publishers)} by {nodes(facts.publishers)}, expected {topic.type}"
        return row(bad, found, f"publish it as {topic.type}, or remap that publisher to another name")
    if topic.type in ros.type_errors:
        return row(bad, f"{topic.type} cannot be used", "see the row messages")
    if not audible:
        lacks_reliability = right[0].reliability == "best_effort" and topic.reliability == "reliable"
        offered, asked = ("best effort", "reliable") if lacks_reliability else ("volatile", "transient local")
        found = f"{nodes(right)} offers it {offered}; who asks for {asked} hears nothing"
        return row(bad, found, f"let {nodes(right)} publish it {asked}")
    if not facts.received:
        expected = (topic.rate_hz or 0.0) * ros.listened_s * (1.0 if ros.time_scale is None else ros.time_scale)
        silence = f"published by {nodes(audible)}, but nothing came in {ros.listened_s:.1f} s"
        clock_runs = ros.time_scale is not None and ros.time_scale >= PAUSED
        if clock_runs and topic.rate_hz and expected < 2.0:
            return row("warning", f"{silence}, which is {expected:.1f} of its periods", "listen longer: --seconds 30")
        # A simulator that is paused explains the silence of every topic but its clock's.
        if topic != CLOCK and ros.topics[CLOCK.name].publishers and not clock_runs:
            return row(bad, silence, "let the simulator run first (row clock)")
        return row(bad, silence, silent or absent)
    strange = [offer for offer in facts.publishers if offer not in audible]
    if strange:
        found = f"heard, but also published as {types(strange)}, {_qos(strange[0])}, by {nodes(strange)}"
        return row("warning", found, f"stop {nodes(strange)}, or remap its topic")
    if len(audible) > 1 and topic != TF_STATIC:
        jumping = "; stamps jump back and forth between them" if facts.went_back else ""
        found = f"{len(audible)} publishers ({nodes(audible)}){jumping}"
        cure = "stop all but one (a node that was killed stays listed for up to 20 s)"
        return row(bad if facts.went_back else "warning", found, cure)
    found = f"{_rate(facts, topic)}, {_qos(audible[0])}, from {nodes(audible)}"
    if topic.rate_hz and facts.rate_hz is not None and facts.rate_hz < slow * topic.rate_hz:
        return row("warning", found, f"slower than it should be: is {nodes(audible)} short of CPU or GPU?")
    return row("ok", found)


def _rate(facts: TopicFacts, topic: Topic) -> str:
    if topic.rate_hz is None:
        return f"{facts.received} heard"
    measured = "one message" if facts.rate_hz is None else f"{facts.rate_hz:.1f} Hz"
    return f"{measured} (nominal {topic.rate_hz:g})"


def nodes(endpoints: Iterable[Endpoint]) -> str:
    """Names of nodes, each once, as words."""
    return " and ".join(dict.fromkeys(entry.node for entry in endpoints))


def types(endpoints: Iterable[Endpoint]) -> str:
    """Message types, each once, as words."""
    return " and ".join(dict.fromkeys(entry.type for entry in endpoints))


def _qos(offer: Endpoint) -> str:
    durability = "" if offer.durability == "volatile" else offer.durability
    return f"{offer.reliability} {durability}".strip().replace("_", " ")
