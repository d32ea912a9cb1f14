"""Facts in plain words for somebody who stands at the line. Pure.

Invariants: the headline is a verdict only while the loop goes round, a bundle judges and the camera delivers; what the line
was not told is never shown like what it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.inspecting import Active
from edge_agent.page.board import Board
from edge_agent.page.facts import Health
from edge_agent.page.snapshot import Snapshot
from edge_agent.page.timing import CycleTimes
from edge_agent.page.trial import Outcome, Result, Trial
from inspection.contracts import ANY_DEFECT, AgentState, Decision, Mode, Purpose, Verdict
from inspection.contracts.decide import defect_score

_UNITS = ((86400, "day"), (3600, "h"), (60, "min"), (1, "s"))
_HUB_POLLS = 3
_HUB_LEAST_SECONDS = 60.0
_NEAR_TAKT = 0.8


@dataclass(frozen=True)
class Headline:
    """The large word. ``hollow``: the line was not told this."""

    kind: str
    word: str
    note: str = ""
    hollow: bool = False


@dataclass(frozen=True)
class Line:
    """One fact: how good it is (``good``, ``plain``, ``warn``, ``bad``), in a few words and in full."""

    name: str
    level: str
    short: str
    text: str


def span(seconds: float) -> str:
    """A length of time in its largest unit: ``12 s``, ``3 min``, ``2 h``, ``4 days``."""
    size, unit = next(((s, u) for s, u in _UNITS if seconds >= s), _UNITS[-1])
    number = int(max(0.0, seconds) // size)
    return f"{number} {unit}{'s' if unit == 'day' and number != 1 else ''}"


def why_of(verdict: Verdict, good_class: str | None) -> str:
    """A verdict's reason in one sentence; empty for OK."""
    if verdict.reason is not None:
        return verdict.reason
    if verdict.decision is Decision.OK or verdict.defect_class is None:
        return ""
    name = verdict.defect_class
    band = verdict.thresholds.get(name) or verdict.thresholds.get(ANY_DEFECT)
    score = verdict.scores.get(name, 0.0)
    if name not in verdict.thresholds and good_class in verdict.scores:
        score = defect_score(verdict.scores, str(good_class))
    if band is None:
        return f"{name}, score {score:.2f}"
    if verdict.decision is Decision.NG:
        return f"{name}, score {score:.2f} (NG from {band.ng:.2f})"
    return f"perhaps {name}, score {score:.2f} (doubt from {band.inconclusive:.2f}, NG from {band.ng:.2f})"


def headline(board: Board, now: Snapshot) -> Headline:
    """What stands there in the largest letters."""
    silent = board.silent_seconds
    if silent is None:
        return Headline("wait", "STARTING", "the station does not inspect yet")
    if not board.moves:
        return Headline("stalled", "STOPPED", f"the inspection has not moved for {span(silent)}; call for help")
    if now.state is AgentState.HOLD and now.active.mode is not Mode.COLLECT:
        return Headline("hold", "HOLD", "no verified bundle: the station cannot say OK")
    if not now.camera.get("ok"):
        return Headline("camera", "CAMERA", camera_line(now.camera, None).text)
    trial = board.challenges.running
    if trial is not None and not any(part.shown for part in trial.steps):
        return Headline("challenge", "CHALLENGE", f"{step(trial)}: {about(trial)}")
    if board.last is None:
        return Headline("wait", "READY", "waiting for the first part")
    return _of_verdict(board.last.verdict)


def _of_verdict(verdict: Verdict) -> Headline:
    kind = verdict.decision.value.lower()
    if verdict.purpose is Purpose.CHALLENGE:
        return Headline(kind, verdict.decision.value, "challenge: the line was told NG", hollow=True)
    if verdict.mode is Mode.COLLECT and verdict.decision is not Decision.ERROR:
        return Headline("collect", "COLLECTING", "nothing is judged; the line was told NG", hollow=True)
    if verdict.mode is Mode.SHADOW:
        return Headline(kind, verdict.decision.value, "shadow: the line was told NG", hollow=True)
    return Headline(kind, verdict.decision.value)


def banners(board: Board, now: Snapshot) -> list[dict[str, str]]:
    """What nobody may overlook."""
    said = []
    trial = board.challenges.running
    if trial is not None:
        said.append(("challenge", f"CHALLENGE RUNNING: {step(trial)}. The line is told NG for every part."))
    if now.state is AgentState.HOLD and now.active.mode is not Mode.COLLECT:
        said.append(("hold", "HOLD: no verified bundle. Every part is told NG until the hub assigns one."))
    elif now.active.mode is Mode.SHADOW:
        said.append(("shadow", "SHADOW MODE: verdicts are for practice. The line is told NG; something else decides."))
    elif now.active.mode is Mode.COLLECT:
        said.append(("collect", "COLLECT MODE: pictures are kept, nothing is judged. The line is told NG."))
    if not now.line.closes:
        said.append(("ledger", "RED LEDGER: not every part or picture is accounted for. Call for help."))
    return [{"kind": kind, "text": text} for kind, text in said]


def camera_line(health: Health, per_second: float | None) -> Line:
    """The camera in words."""
    fault = _said(health)
    if not health.get("ok"):
        return Line("Camera", "bad", fault or "no picture", fault or "no picture comes; check cable and power")
    short = "delivers" if per_second is None else f"{per_second:.1f} a second"
    parts = ["delivers" if per_second is None else f"delivers {per_second:.1f} pictures a second", *_imaging(health)]
    if refused := health.get("settings_refused"):
        return Line("Camera", "warn", "settings refused", f"{'; '.join(parts)}; the camera did not take: {refused}")
    return Line("Camera", "good", short, "; ".join(parts))


def _imaging(health: Health) -> list[str]:
    words = {"focus": "sharpness", "brightness": "brightness", "shift_x": "shift right", "shift_y": "shift down"}
    return [f"{word} {value:g}" for key, word in words.items() if isinstance(value := health.get(key), int | float)]


def _said(health: Health) -> str:
    return str(next((health[key] for key in ("text", "last_fault", "problem", "failure") if health.get(key)), ""))


def hub_line(now: Snapshot, hub: str, every_seconds: float) -> Line:
    """When the hub was heard last. Without it the station inspects on."""
    if hub.startswith("dir:"):
        return Line("Hub", "plain", "by folder", f"no network: verdicts go to the folder {hub.removeprefix('dir:')}")
    if now.hub_contact is None:
        return Line("Hub", "warn", "no contact yet", f"{hub} has not answered since the start; the station inspects on")
    seconds = max(0.0, now.at - now.hub_contact)
    age = span(seconds)
    if seconds > max(_HUB_LEAST_SECONDS, _HUB_POLLS * every_seconds):
        return Line("Hub", "warn", f"silent for {age}", f"{hub} has not answered for {age}; the station inspects on")
    return Line("Hub", "good", f"heard {age} ago", f"{hub} answered {age} ago")


def outbox_line(now: Snapshot) -> Line:
    """What waits for the hub, and the room that is left."""
    waiting = 0 if now.ledger is None else now.ledger.pending
    pictures = now.pictures_waiting
    free = "" if now.free_disk_bytes is None else f"{now.free_disk_bytes / 1e9:,.1f} GB of disk are free"
    if now.ledger is None or pictures is None:
        return Line("Outbox", "warn", "cannot be read", f"the outbox cannot be read; {free}")
    short = "empty" if not waiting else f"{waiting:,} wait"
    text = f"{_some(max(0, waiting - pictures), 'verdict')} and {_some(pictures, 'picture')} wait for the hub; {free}"
    return Line("Outbox", "plain", short, text)


def _some(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def ledger_line(now: Snapshot) -> Line:
    """Green when both identities hold."""
    return Line("Ledger", "good" if now.line.closes else "bad", "closes" if now.line.closes else "RED", now.line.text)


def bundle_line(now: Snapshot) -> Line:
    """What judges, by which recipe, in which mode."""
    active = now.active
    if active.loaded is None:
        level = "warn" if active.mode is Mode.COLLECT else "bad"
        return Line("Bundle", level, "none", f"no bundle; mode {active.mode.value}")
    loaded = active.loaded
    manifest = loaded.bundle.manifest
    level = "warn" if now.state is AgentState.PROBATION or active.mode is not Mode.JUDGE else "good"
    text = (
        f"{manifest.name} version {manifest.version} ({loaded.digest[:12]}), recipe version {loaded.recipe.version} "
        f"({loaded.recipe_digest[:12]}), mode {active.mode.value}, assignment {now.serial}{_besides(now, active)}"
    )
    return Line("Bundle", level, f"{manifest.name} {manifest.version} r{loaded.recipe.version}", text)


def _besides(now: Snapshot, active: Active) -> str:
    probation = ", on probation" if now.state is AgentState.PROBATION else ""
    challenger = "" if active.challenger is None else f", challenger {active.challenger.digest[:12]} looks on"
    return probation + challenger


def connection_lines(connections: Mapping[str, Health]) -> list[Line]:
    """One each: the line's controller, a broker, a web address."""
    levels = {True: ("good", "connected"), False: ("bad", "not connected"), None: ("plain", "not known")}
    found = []
    for name, health in connections.items():
        ok = health.get("ok")
        level, word = levels[ok if isinstance(ok, bool) else None]
        found.append(Line(name, level, word, _said(health) or word))
    return found


def cycle_line(cycle: CycleTimes, takt_seconds: float | None, late: int) -> Line:
    """The time parts take, against the takt."""
    half, most = cycle.percentile(0.5), cycle.percentile(0.99)
    if half is None or most is None:
        return Line("Cycle", "plain", "no part yet", "no part has been judged since the start")
    short = f"{half * 1e3:.0f} ms, p99 {most * 1e3:.0f} ms"
    text = f"half of the parts take up to {half * 1e3:.1f} ms, 99 of 100 up to {most * 1e3:.1f} ms"
    if takt_seconds is None:
        return Line("Cycle", "plain", short, f"{text}; no takt is set; {late:,} late today")
    level = "bad" if most > takt_seconds else "warn" if late or most > _NEAR_TAKT * takt_seconds else "good"
    short = f"{half * 1e3:.0f}/{most * 1e3:.0f} of {takt_seconds * 1e3:.0f} ms"
    return Line("Cycle", level, short, f"{text}; takt {takt_seconds:g} s; {late:,} late today")


def trouble_lines(now: Snapshot) -> list[Line]:
    """What else does not work, if anything."""
    troubles = now.troubles
    return [Line("Troubles", "warn", f"{len(troubles)}: {troubles[0]}", "; ".join(troubles))] if troubles else []


def challenge_line(last: Trial | None, age_seconds: float, active: Active) -> Line:
    """The last challenge that was gone through, and whether it says anything about what judges now."""
    if last is None:
        return Line("Challenge", "plain", "never", "no challenge has been done at this station yet")
    words = {Outcome.PASSED: "passed", Outcome.REJECTS_GOOD: "rejects good", Outcome.FAILED: "FAILED"}
    word = words.get(last.outcome, last.outcome.value)
    level = {Outcome.PASSED: "good", Outcome.FAILED: "bad"}.get(last.outcome, "warn")
    text = f"last challenge: {span(age_seconds)} ago, {word}. {result(last)}"
    loaded = active.loaded
    if loaded is None or (loaded.digest, loaded.recipe_digest) != (last.bundle_digest, last.recipe_digest):
        level = "bad" if level == "bad" else "warn"
        text += f" That was {last.model} with the recipe it had then: what judges now has not been challenged."
        word = f"outdated, {word}"
    return Line("Challenge", level, f"{word}, {span(age_seconds)}", text)


def step(trial: Trial) -> str:
    """What the person must do next."""
    again = " again" if trial.steps[trial.position].shown else ""
    return f"show part {trial.position + 1} of {len(trial.steps)}{again}"


def about(trial: Trial) -> str:
    """The part that is to be shown next."""
    part = trial.steps[trial.position]
    kind = "known-bad, expected NG" if part.expected == "NG" else "known-good, expected OK"
    return f"{part.name}: {kind}" if part.name else kind


def result(trial: Trial) -> str:
    """What a challenge showed."""
    bad, good = trial.of("NG"), trial.of("OK")
    missed = [_named(i, trial) for i, step in enumerate(trial.steps) if step.result is Result.MISSED]
    said = [f"Caught {trial.count(Result.CAUGHT)} of {bad} known-bad parts."]
    if missed:
        said.append(f"MISSED: {', '.join(missed)}.")
    if good:
        said.append(f"Passed {trial.count(Result.PASSED)} of {good} known-good parts.")
    if trial.why is not None:
        said.append(f"Ended early: {trial.why}.")
    return " ".join(said)


def _named(index: int, trial: Trial) -> str:
    name = trial.steps[index].name
    return f"part {index + 1}" + (f" ({name})" if name else "")


def conclusion(trial: Trial) -> str:
    """What a challenge means, in large words."""
    return {
        Outcome.PASSED: "The station catches them.",
        Outcome.REJECTS_GOOD: "The station catches them, but rejects good parts.",
        Outcome.FAILED: "The station LETS BAD PARTS THROUGH. Stop the line and call quality.",
        Outcome.ENDED_EARLY: "The challenge was not finished: it proves nothing.",
    }.get(trial.outcome, "")
