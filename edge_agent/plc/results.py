"""A verdict in a controller's words. Invariant: only a clean OK is OK."""

from edge_agent.plc.handshake import Result
from edge_agent.plc.registers import Code
from edge_agent.signals.port import clean_ok
from inspection.contracts import Decision, Mode, Purpose, Verdict


def result_of(verdict: Verdict, seconds: float) -> Result:
    """What the line hears of it, ``seconds`` after its trigger."""
    judging = verdict.mode is Mode.JUDGE and verdict.purpose is Purpose.PRODUCTION
    return Result(
        ok=clean_ok(verdict),
        inconclusive=verdict.decision is Decision.INCONCLUSIVE,
        judging=judging,
        code=_code(verdict, judging=judging),
        part=verdict.part,
        defect_class=verdict.defect_class or "",
        inspection_ms=round(seconds * 1e3),
    )


def _code(verdict: Verdict, *, judging: bool) -> Code:
    if verdict.decision is Decision.ERROR:
        return Code.of(verdict.error_code)
    return Code.NONE if judging else Code.NOT_JUDGING
