"""Is each device alive and honest: a report within three polls, and a trigger ledger that closes."""

from datetime import datetime, timedelta

from inspection.contracts import Ledger
from inspection.store.tables import DeviceRow

POLLS_UNTIL_SILENT = 3


def is_silent(device: DeviceRow, now: datetime, *, poll_seconds: float) -> bool:
    """True when no report came for three polls (counted from enrolment while there is none)."""
    heard = device.last_seen or device.enrolled_at
    return now - heard > timedelta(seconds=POLLS_UNTIL_SILENT * poll_seconds)


def ledger_words(ledger: Ledger) -> str:
    """The two identities of a ledger with its numbers, each with = or, where it fails, with ≠."""
    ends = ledger.ok + ledger.ng + ledger.inconclusive + ledger.error + ledger.missed
    kept = ledger.uploaded + ledger.pending + ledger.evicted
    first = "=" if ledger.triggers == ends else "≠"
    second = "=" if ledger.stored == kept else "≠"
    return (
        f"{ledger.triggers} triggers {first} {ledger.ok} OK + {ledger.ng} NG + {ledger.inconclusive} inconclusive"
        f" + {ledger.error} error + {ledger.missed} missed; {ledger.stored} stored {second} {ledger.uploaded} uploaded"
        f" + {ledger.pending} pending + {ledger.evicted} evicted"
    )
