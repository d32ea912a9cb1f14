"""The account of a retrain, in markdown: what was decided and why, with the figures it rests on."""

from inspection.data.snapshot_record import Split
from inspection.data.snapshots import load_snapshot
from inspection.release.gate import GateAnswer
from inspection.release.scorecard import Scorecard
from inspection.settings import Settings
from inspection.stages.candidate import Candidate, Shipped
from inspection.store.session import Store


def account_of(settings: Settings, store: Store, candidate: Candidate, decision: str) -> str:
    """Decision first, then evidence: gates, scorecards, the shipped file, the snapshot, and where to look."""
    sections = [
        f"# Retrain of {candidate.product}\n\n**{decision}**",
        _gate("Gate 1: the teacher on the golden parts", candidate.gate_1, candidate.golden_1),
        _gate("Gate 2: the bundle itself, on the agent's runtime", candidate.gate_2, candidate.golden_2),
        _card("The champion's bundle on the same parts", candidate.champion_2),
        _shipped(candidate.shipped),
        _data(store, candidate.snapshot),
        _where(settings, candidate),
    ]
    return "\n\n".join(filter(None, sections))


def _where(settings: Settings, candidate: Candidate) -> str:
    run = f"Run `{candidate.run_id}`, [compared in MLflow]({candidate.comparison})"
    return f"{run}; the lines in the [hub]({settings.hub_url})."


def _gate(title: str, answer: GateAnswer | None, card: Scorecard | None) -> str:
    return "" if answer is None else f"## {title}\n\n{answer.why}\n\n{card.to_markdown() if card else ''}"


def _card(title: str, card: Scorecard | None) -> str:
    return "" if card is None else f"## {title}\n\n{card.to_markdown()}"


def _shipped(shipped: Shipped | None) -> str:
    if shipped is None:
        return ""
    rows = [
        ("precision", shipped.precision),
        ("latency, one thread", f"{shipped.latency_ms:.2f} ms ({shipped.float_latency_ms:.2f} ms as float)"),
        ("file", f"{shipped.length / 1e6:.2f} MB ({shipped.float_length / 1e6:.2f} MB as float)"),
        ("equal verdicts with the float file", f"{shipped.agreement:.2%}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"## The device's file\n\n| | |\n|---|---|\n{table}"


def _data(store: Store, snapshot_id: str) -> str:
    snapshot = load_snapshot(store, snapshot_id)
    head = "| class | " + " | ".join(split.value for split in Split) + " |\n|---|" + "---|" * len(Split)
    rows = []
    for name in snapshot.classes:
        counts = [sum(e.label == name for e in snapshot.of(split)) for split in Split]
        rows.append(f"| {name} | " + " | ".join(map(str, counts)) + " |")
    left_out = f"{len(snapshot.refused)} labelled pictures were left out." if snapshot.refused else ""
    return f"## Snapshot `{snapshot_id[:12]}`\n\n{head}\n" + "\n".join(rows) + f"\n\n{left_out}"
