"""The log as signal: for stations without a PLC, and for reading along."""

import logging

from edge_agent.signals.port import clean_ok
from edge_agent.trigger import Request
from inspection.contracts import Verdict

log = logging.getLogger("edge_agent.signal")


class LogSignal:
    """One line per verdict."""

    def begin(self, request: Request) -> None:
        """Nothing: a line in the log is about one part, no output stands between two."""

    def tell(self, verdict: Verdict) -> None:
        """Log the output and what it is about."""
        log.info(
            "output OK" if clean_ok(verdict) else "output NG",
            extra={
                "part": verdict.part,
                "decision": verdict.decision.value,
                "defect_class": verdict.defect_class,
                "reason": verdict.reason,
                "ms": verdict.timings_ms.get("total"),
            },
        )

    def safe(self, reason: str) -> None:
        """Log NG with its reason."""
        log.info("output NG", extra={"reason": reason})

    def close(self) -> None:
        """Nothing is held open."""
