"""The demo's outcome: figures of the line with exact intervals, the report file, and the closing table.

Invariants: an escape is a defective part whose decision is OK, overkill a good part whose decision is not OK (FIELD's
words); a part counts once, with the worst of its verdicts, because any NG rejects it; no figure without its count.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Group
from rich.table import Table
from scipy.stats import binomtest

from inspection.contracts import Contract, Costs, Decision, Verdict
from inspection.demo.renderer import Truth
from inspection.errors import IntegrityError

Interval = tuple[float, float]
_WORSE = {Decision.OK: 0, Decision.INCONCLUSIVE: 1, Decision.NG: 2, Decision.ERROR: 3}


@dataclass(frozen=True)
class Judged:
    """One part as the line judged it, beside what it really is."""

    part: str
    decision: Decision
    truth: Truth
    good: bool


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class KindFigures(_Record):
    """One kind of defect: parts, escapes among them, rate and interval."""

    parts: int
    escapes: int
    escape_rate: float
    escape_interval: Interval


class LineFigures(_Record):
    """What the line let through and what it rejected. A rate without parts to measure it on is None.

    Intervals are two-sided Clopper-Pearson at ``confidence``.
    """

    parts: int
    defective: int
    good: int
    escapes: int
    overkills: int
    escape_rate: float | None
    escape_interval: Interval | None
    overkill_rate: float | None
    overkill_interval: Interval | None
    confidence: float
    decisions: dict[str, int]
    by_kind: dict[str, KindFigures]


class LabelStudioFigures(_Record):
    """Tasks and annotations in the project at the end."""

    tasks: int
    annotations: int


class MlflowFigures(_Record):
    """Registered versions of the edge model, and which one is champion."""

    versions: int
    champion: str | None


class BundleFigures(_Record):
    """The bundle that runs at the end. Latencies: median milliseconds a picture, same process and thread count."""

    digest: str
    precision: str
    latency_ms: float
    float_latency_ms: float
    agreement: float
    bytes: int | None = None
    float_bytes: int | None = None


class AgentFigures(_Record):
    """One agent's own word at the end."""

    name: str
    station: str
    digest: str | None
    verdicts_by_digest: dict[str, int]
    ledger_closes: bool


class Stage(_Record):
    """A stage of the demo and how long it took."""

    name: str
    seconds: float = Field(ge=0)


class DemoReport(Contract):
    """``demo-report.json``. Without ``before``, ``after`` and ``bundle`` no model passed the gates; the notes say why."""

    SCHEMA: ClassVar[str] = "escapement.demo-report/1.0"

    pictures: str  # "rendered", or the directory they came from
    new_classes: list[str]
    before: LineFigures | None
    after: LineFigures | None
    label_studio: LabelStudioFigures
    mlflow: MlflowFigures
    bundle: BundleFigures | None
    agents: list[AgentFigures]
    stages: list[Stage]
    seconds: float
    peak_memory_bytes: int | None = None
    last_label_to_canary_seconds: float | None = None
    costs: Costs = Costs()
    notes: list[str] = []


def pair(verdicts: Iterable[Verdict], truth: Mapping[str, Truth], good_class: str) -> list[Judged]:
    """Put each part's worst verdict beside its truth. Raises IntegrityError on a part nobody sent down the line."""
    worst: dict[str, Decision] = {}
    for verdict in verdicts:
        if verdict.part not in truth:
            raise IntegrityError(
                f"verdict {verdict.id} is about part {verdict.part}, which the virtual line never fed: "
                "is an agent of another run still writing into this hub?"
            )
        worst[verdict.part] = max(worst.get(verdict.part, Decision.OK), verdict.decision, key=_WORSE.__getitem__)
    return [Judged(part, said, truth[part], truth[part].label == good_class) for part, said in worst.items()]


def measure(verdicts_with_truth: Iterable[Judged], *, confidence: float = 0.95) -> LineFigures:
    """Escape and overkill with exact two-sided intervals (Clopper and Pearson, Biometrika 26, 1934)."""
    judged = list(verdicts_with_truth)
    good = [one for one in judged if one.good]
    defective = [one for one in judged if not one.good]
    kinds: dict[str, list[Judged]] = defaultdict(list)
    for one in defective:
        kinds[one.truth.kind].append(one)
    escapes = sum(one.decision is Decision.OK for one in defective)
    overkills = sum(one.decision is not Decision.OK for one in good)
    return LineFigures(
        parts=len(judged),
        defective=len(defective),
        good=len(good),
        escapes=escapes,
        overkills=overkills,
        escape_rate=escapes / len(defective) if defective else None,
        escape_interval=_interval(escapes, len(defective), confidence) if defective else None,
        overkill_rate=overkills / len(good) if good else None,
        overkill_interval=_interval(overkills, len(good), confidence) if good else None,
        confidence=confidence,
        decisions={d.value: sum(one.decision is d for one in judged) for d in Decision},
        by_kind={kind: _kind(members, confidence) for kind, members in sorted(kinds.items())},
    )


def _kind(members: list[Judged], confidence: float) -> KindFigures:
    escapes = sum(one.decision is Decision.OK for one in members)
    return KindFigures(
        parts=len(members),
        escapes=escapes,
        escape_rate=escapes / len(members),
        escape_interval=_interval(escapes, len(members), confidence),
    )


def _interval(hits: int, tries: int, confidence: float) -> Interval:
    found = binomtest(hits, tries).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def write_report(report: DemoReport, path: Path) -> None:
    """Write ``demo-report.json``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(report.model_dump_json(indent=1) + "\n")
    temporary.replace(path)


def closing_table(report: DemoReport) -> Group:
    """What the demo shows at its end: the line before and after, then what runs, then where the time went."""
    tables = [_facts_table(report), _stage_table(report)]
    if report.before is not None and report.after is not None:
        tables.insert(0, _line_table(report, report.before, report.after))
    return Group(*tables)


def _line_table(report: DemoReport, before: LineFigures, after: LineFigures) -> Table:
    table = Table(title=f"The line before and after (intervals: exact, {before.confidence:.0%})", title_justify="left")
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_row("escape", _escape(before), _escape(after), style="bold")
    table.add_row("overkill", _overkill(before), _overkill(after), style="bold")
    for kind in sorted(set(before.by_kind) | set(after.by_kind), key=lambda k: (k not in report.new_classes, k)):
        name = f"  escape of {kind}" + (" (new)" if kind in report.new_classes else "")
        table.add_row(name, *(_kind_cell(figures.by_kind.get(kind)) for figures in (before, after)))
    costs = report.costs
    table.add_row("cost of 100 parts", *(_cost(figures, costs) for figures in (before, after)))
    table.caption = f"cost: an escape {costs.escape:g}, an overkill {costs.overkill:g}"
    table.caption_justify = "left"
    return table


def _escape(figures: LineFigures) -> str:
    return _cell(figures.escapes, figures.defective, figures.escape_rate, figures.escape_interval)


def _overkill(figures: LineFigures) -> str:
    return _cell(figures.overkills, figures.good, figures.overkill_rate, figures.overkill_interval)


def _cost(figures: LineFigures, costs: Costs) -> str:
    """What the mistakes among a hundred parts of the line cost, in the currency of ``costs``."""
    if not figures.parts:
        return "none seen"
    return f"{100 * (costs.escape * figures.escapes + costs.overkill * figures.overkills) / figures.parts:.0f}"


def _kind_cell(kind: KindFigures | None) -> str:
    return "none seen" if kind is None else _cell(kind.escapes, kind.parts, kind.escape_rate, kind.escape_interval)


def _cell(hits: int, tries: int, rate: float | None, interval: Interval | None) -> str:
    if rate is None or interval is None:
        return "none seen"
    return f"{rate:.1%} [{interval[0]:.1%}, {interval[1]:.1%}] {hits}/{tries}"


def _facts_table(report: DemoReport) -> Table:
    table = Table(title="What runs now", title_justify="left", show_header=False)
    if report.bundle is not None:
        _bundle_rows(table, report.bundle, report.agents)
    studio = report.label_studio
    table.add_row("Label Studio", f"{studio.tasks} tasks, {studio.annotations} annotations")
    table.add_row("MLflow", f"{report.mlflow.versions} versions, champion {report.mlflow.champion or 'none'}")
    if report.last_label_to_canary_seconds is not None:
        table.add_row("last label to first canary verdict", f"{report.last_label_to_canary_seconds:.0f} s")
    if report.peak_memory_bytes is not None:
        table.add_row("peak memory", f"{report.peak_memory_bytes / 1e9:.2f} GB")
    for note in report.notes:
        table.add_row("note", note)
    return table


def _bundle_rows(table: Table, bundle: BundleFigures, agents: Sequence[AgentFigures]) -> None:
    table.add_row("bundle", f"{bundle.digest[:12]} {bundle.precision}" + _size(bundle))
    faster = bundle.float_latency_ms / bundle.latency_ms if bundle.latency_ms else float("nan")
    table.add_row("latency", f"{bundle.latency_ms:.2f} ms, float {bundle.float_latency_ms:.2f} ms ({faster:.1f} x)")
    table.add_row("equal verdicts with float", f"{bundle.agreement:.1%}")
    on_new = sum(agent.digest == bundle.digest for agent in agents)
    table.add_row("agents on it", f"{on_new} of {len(agents)}; ledgers that close: {sum(a.ledger_closes for a in agents)}")


def _size(bundle: BundleFigures) -> str:
    if bundle.bytes is None:
        return ""
    whole = f", {bundle.bytes / 1e6:.2f} MB"
    return whole if bundle.float_bytes is None else f"{whole} (float {bundle.float_bytes / 1e6:.2f} MB)"


def _stage_table(report: DemoReport) -> Table:
    table = Table("stage", title="Where the time went", title_justify="left", show_footer=True)
    table.columns[0].footer = "all"
    table.add_column("seconds", justify="right", footer=f"{report.seconds:.0f}")
    for stage in report.stages:
        table.add_row(stage.name, f"{stage.seconds:.1f}")
    return table
