"""The account of a retrain, in markdown: what was decided and why, with the figures it rests on; or where it broke."""

import math

from inspection.data.snapshot_record import Snapshot, Split
from inspection.data.snapshots import load_snapshot
from inspection.errors import (
    BundleError,
    EnvironmentTroubleError,
    EscapementError,
    InputError,
    IntegrityError,
    LeaseError,
    ServerError,
    UsageError,
)
from inspection.release.gate import GateAnswer
from inspection.release.map_score import MapScore
from inspection.release.scorecard import Scorecard
from inspection.settings import Settings
from inspection.stages.candidate import Candidate, Shipped
from inspection.stages.familiar import is_guarded, rare_pictures
from inspection.stages.pointing import map_score_of
from inspection.store.session import Store

_LONGEST_WORDS = 1000
_ADVICE: tuple[tuple[type[EscapementError], str], ...] = (
    (UsageError, "Change what it names: until then every attempt ends here."),
    (InputError, "Correct the picture, the label or the labelling interface it names."),
    (IntegrityError, "Look at what it names, in the store, before anything is retrained from it."),
    (BundleError, "Look at the bundle: it is not what the agent's own program accepts."),
    (ServerError, "Look at the server it names: is it running, is its address right?"),
    (LeaseError, "Another process holds the lease: wait for it, or find out which one it is."),
    (EnvironmentTroubleError, "Look at this machine: `inspection doctor` names its troubles."),
)
_FAULT = "This is a fault of a program, not of a setting: the log of this run has the whole trace; report it with that."


def words_of(error: Exception) -> str:
    """What an error says, on one line: the message of our own errors, with the kind before it where it is another's."""
    said = str(error) if isinstance(error, EscapementError) else f"{type(error).__name__}: {error}"
    return " ".join(said.split())[:_LONGEST_WORDS]


def account_of_failure(product: str, stage: str, error: Exception, outlook: str) -> str:
    """Where a retrain broke, the words of the error, what to do, and with ``outlook`` what comes next by itself. Pure."""
    advice = next((words for kind, words in _ADVICE if isinstance(error, kind)), _FAULT)
    return f"# Retrain of {product}\n\n**Failed in {stage}: {words_of(error)}**\n\n{advice}\n\n{outlook}"


def account_of(settings: Settings, store: Store, candidate: Candidate, decision: str) -> str:
    """Decision first, then evidence: gates, scorecards, the shipped file, the snapshot, and where to look."""
    sections = [
        f"# Retrain of {candidate.product}\n\n**{decision}**",
        _gate("Gate 1: the teacher on the golden parts", candidate, candidate.gate_1, candidate.golden_1),
        _gate("Gate 2: the bundle itself, on the agent's runtime", candidate, candidate.gate_2, candidate.golden_2),
        _pointing(map_score_of(candidate)),
        _card("The champion's bundle on the same parts", candidate.champion_2),
        _shipped(candidate.shipped),
        _promises(candidate),
        _data(load_snapshot(store, candidate.snapshot), candidate),
        _where(settings, candidate),
    ]
    return "\n\n".join(filter(None, sections))


def _where(settings: Settings, candidate: Candidate) -> str:
    run = f"Run `{candidate.run_id}`, [compared in MLflow]({candidate.comparison})"
    return f"{run}; the lines in the [hub]({settings.hub_url})."


def _gate(title: str, candidate: Candidate, answer: GateAnswer | None, card: Scorecard | None) -> str:
    if answer is None:
        return ""
    return "\n\n".join([f"## {title}", f"{answer.why}{_to_label(answer, candidate)}", card.to_markdown() if card else ""])


def _to_label(answer: GateAnswer, candidate: Candidate) -> str:
    """How many parts more must be labelled for the golden ones that are lacking: only a share of them becomes golden."""
    if candidate.definition is None:
        return ""
    share, lacking = candidate.definition.retrain.golden_share, {}
    for kind, count in (("defective", answer.need_more_defective), ("good", answer.need_more_good)):
        if count:
            lacking[kind] = math.ceil(count / share)
    if not lacking:
        return ""
    parts = " and ".join(f"{count} more {kind} ones" for kind, count in lacking.items())
    return f" {share:.0%} of the parts that are labelled become golden: label about {parts}."


def _card(title: str, card: Scorecard | None) -> str:
    return "" if card is None else f"## {title}\n\n{card.to_markdown()}"


def _pointing(score: MapScore | None) -> str:
    return "" if score is None else f"## Where the bundle points, against the boxes people drew\n\n{score.to_markdown()}"


def _shipped(shipped: Shipped | None) -> str:
    if shipped is None:
        return ""
    rows = [
        ("precision, runtime", f"{shipped.precision}, {shipped.runtime}"),
        ("latency, one thread", f"{shipped.latency_ms:.2f} ms ({shipped.float_latency_ms:.2f} ms as float)"),
        ("file", f"{shipped.length / 1e6:.2f} MB ({shipped.float_length / 1e6:.2f} MB as float)"),
        ("equal verdicts with the float file", f"{shipped.agreement:.2%}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"## The device's file\n\n| | |\n|---|---|\n{table}"


def _promises(candidate: Candidate) -> str:
    recipes = {"the teacher": candidate.teacher_recipe, "the bundle": candidate.recipe}
    said = [f"* Of {whose}: {r.promise.words}." for whose, r in recipes.items() if r is not None and r.promise is not None]
    return "## What the thresholds promise of escapes\n\n" + "\n".join(said) if said else ""


def _data(snapshot: Snapshot, candidate: Candidate) -> str:
    head = "| class | " + " | ".join(split.value for split in Split) + " |\n|---|" + "---|" * len(Split)
    rows = []
    for name in dict.fromkeys([*snapshot.classes, *sorted(e.label for e in snapshot.examples)]):
        counts = [sum(e.label == name for e in snapshot.of(split)) for split in Split]
        rows.append(f"| {name} | " + " | ".join(map(str, counts)) + " |")
    left_out = f"Labelled pictures left out: {len(snapshot.refused)}." if snapshot.refused else ""
    said = " ".join(filter(None, [left_out, _of_rare_classes(snapshot, candidate)]))
    return f"## Snapshot `{candidate.snapshot[:12]}`\n\n{head}\n" + "\n".join(rows) + f"\n\n{said}"


def _of_rare_classes(snapshot: Snapshot, candidate: Candidate) -> str:
    """Who watches for what is labelled and not learnt: a cold start doubts whatever is unlike good parts, a classifier only
    where it has a guard."""
    rare, plan = rare_pictures(snapshot), candidate.definition
    if not rare or candidate.cold_start or plan is None:
        return ""
    said = f"{rare} labelled pictures show classes too rare to be learnt"
    recipe = candidate.recipe
    if is_guarded(plan.student, snapshot) if recipe is None else recipe.unfamiliar is not None:
        return f"{said}: until there are more, a bundle doubts a part unlike all it has learnt (INCONCLUSIVE)."
    return (
        f"{said}, and no guard watches for such parts: with "
        '`"student": {"novelty_guard": true}` in the product (`inspection product set`) a part unlike all the model has '
        "learnt is INCONCLUSIVE."
    )
