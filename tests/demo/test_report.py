"""The demo's figures: counted as the field counts, with intervals that are exact."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import beta

from inspection.contracts import Decision, Verdict
from inspection.demo.renderer import GOOD, Truth
from inspection.demo.report import (
    AgentFigures,
    BundleFigures,
    DemoReport,
    Judged,
    LabelStudioFigures,
    MlflowFigures,
    Stage,
    closing_table,
    measure,
    pair,
    write_report,
)
from inspection.errors import IntegrityError

DENT = Truth("dent", kind="dent")


def judged(decision: Decision, truth: Truth, number: int = 0) -> Judged:
    """One judged part."""
    return Judged(f"p{number}", decision, truth, truth.label == GOOD)


def verdict(part: str, decision: Decision, sequence: int) -> Verdict:
    """One verdict on a part."""
    return Verdict(
        id=f"v{sequence}",
        device="d",
        boot="b",
        sequence=sequence,
        station="S1",
        product="lid",
        part=part,
        captured_at=datetime(2026, 1, 1, tzinfo=UTC),
        decision=decision,
        agent_version="0",
    )


@given(st.lists(st.tuples(st.sampled_from(Decision), st.booleans()), max_size=60))
def test_every_part_is_counted_once(parts: list[tuple[Decision, bool]]) -> None:
    """Escapes are defective parts called OK, overkills good parts not called OK; the rest was right."""
    figures = measure([judged(said, DENT if bad else Truth(GOOD)) for said, bad in parts])
    right = sum((said is Decision.OK) != bad for said, bad in parts)
    assert figures.parts == figures.good + figures.defective == len(parts) == sum(figures.decisions.values())
    assert right + figures.escapes + figures.overkills == len(parts)
    assert (figures.escape_rate is None) == (figures.defective == 0)
    assert (figures.overkill_interval is None) == (figures.good == 0)
    for rate, interval in (
        (figures.escape_rate, figures.escape_interval),
        (figures.overkill_rate, figures.overkill_interval),
    ):
        if rate is not None and interval is not None:
            assert 0 <= interval[0] <= rate <= interval[1] <= 1


def test_intervals_are_clopper_pearson() -> None:
    """Against the beta quantiles of the definition; no escape in 59 gives the textbook upper bound of 6.1 %."""
    figures = measure([judged(Decision.OK if i < 3 else Decision.NG, DENT) for i in range(40)])
    assert figures.escape_interval == pytest.approx((beta.ppf(0.025, 3, 38), beta.ppf(0.975, 4, 37)))
    none = measure([judged(Decision.NG, DENT) for _ in range(59)])
    assert none.escape_interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 59)))


def test_kinds_add_up() -> None:
    """The figures per kind are those of the whole, taken apart."""
    crack = Truth("crack", kind="crack")
    figures = measure([judged(d, t) for d in Decision for t in (DENT, crack, Truth(GOOD))])
    assert sum(kind.escapes for kind in figures.by_kind.values()) == figures.escapes == 2
    assert {name: kind.parts for name, kind in figures.by_kind.items()} == {"crack": 4, "dent": 4}


def test_any_ng_rejects_the_part() -> None:
    """A part judged twice counts once, with the worst decision."""
    truth = {"a": DENT, "b": Truth(GOOD)}
    verdicts = [verdict("a", Decision.OK, 1), verdict("b", Decision.OK, 2), verdict("a", Decision.NG, 3)]
    figures = measure(pair(verdicts, truth, GOOD))
    assert (figures.parts, figures.escapes, figures.overkills) == (2, 0, 0)


def test_a_verdict_on_a_part_nobody_fed_is_refused() -> None:
    """Figures of somebody else's parts would be worse than none."""
    with pytest.raises(IntegrityError, match="about part stranger"):
        pair([verdict("stranger", Decision.OK, 1)], {}, GOOD)


def report() -> DemoReport:
    """A finished demo."""
    before = measure([judged(Decision.OK, DENT), judged(Decision.NG, DENT), judged(Decision.OK, Truth(GOOD))])
    after = measure([judged(Decision.NG, DENT), judged(Decision.OK, Truth(GOOD))])
    return DemoReport(
        pictures="rendered",
        new_classes=["dent"],
        before=before,
        after=after,
        label_studio=LabelStudioFigures(tasks=120, annotations=118),
        mlflow=MlflowFigures(versions=2, champion="2"),
        bundle=BundleFigures(digest="ab" * 32, precision="int8", latency_ms=1.9, float_latency_ms=4.2, agreement=0.998),
        agents=[AgentFigures(name="a", station="S1", digest="ab" * 32, verdicts_by_digest={"x": 3}, ledger_closes=True)],
        stages=[Stage(name="train", seconds=61.0)],
        seconds=300,
        peak_memory_bytes=3_000_000_000,
    )


def test_the_report_file_has_what_scripts_read(tmp_path: Path) -> None:
    """The names the work order lists are in the file, and it reads back the same."""
    path = tmp_path / "out" / "demo-report.json"
    write_report(report(), path)
    body = json.loads(path.read_text())
    for side in ("before", "after"):
        wanted = {"escape_rate", "overkill_rate", "escape_interval", "overkill_interval", "escapes", "overkills"}
        assert wanted | {"defective", "good"} <= set(body[side])
    assert {"tasks", "annotations"} == set(body["label_studio"])
    assert {"versions", "champion"} == set(body["mlflow"])
    assert {"digest", "precision", "latency_ms", "float_latency_ms", "agreement"} <= set(body["bundle"])
    assert {"digest", "verdicts_by_digest", "ledger_closes"} <= set(body["agents"][0])
    assert body["stages"] == [{"name": "train", "seconds": 61.0}]
    assert DemoReport.parse(path.read_text()) == report()


def test_the_closing_table_shows_the_fall() -> None:
    """Before and after stand side by side with counts and intervals."""
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(closing_table(report()))
    shown = console.export_text()
    assert "50.0% [1.3%, 98.7%] 1/2" in shown
    assert "escape of dent (new)" in shown
    assert "cost: an escape 10, an overkill 1" in shown
    cost = next(line for line in shown.splitlines() if "cost of 100 parts" in line)
    assert [cell.strip() for cell in cost.split("│")[2:4]] == ["333", "0"]
    assert "1.90 ms, float 4.20 ms (2.2 x)" in shown
    assert "3.00 GB" in shown
