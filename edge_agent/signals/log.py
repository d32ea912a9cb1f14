"""The log as signal: for stations without a PLC, and for reading along."""

import logging

from edge_agent.signals.port import clean_ok
from inspection.contracts import Verdict

log = logging.getLogger("edge_agent.signal")


class LogSignal:
    """One line per verdict."""

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
