"""Store and forward: verdicts, and the pictures of verdicts the hub holds, each in a lane of its own.

Invariants: nothing local is marked without a receipt that names it with the right digest; what the hub will never take is
set aside and counted, alone, not with its batch; everything else is tried again for ever, ever slower; a picture whose
verdict the hub has lost waits until that was sent again.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Generic

from edge_agent.errors import HubError, HubRefusalError
from edge_agent.journal import Journal, Pending
from edge_agent.lanes import Backoff, Lane, T
from edge_agent.outbox import Outbox, PendingPicture
from edge_agent.supervise import Worker
from edge_agent.transport import Transport
from inspection.contracts import PictureNote, Receipt, sha256_hex

log = logging.getLogger(__name__)

_IDLE_SECONDS = 0.5
_BREATH_SECONDS, _BREATHS = 0.01, 2.0  # while the line runs: at least, and so many times as long as a batch took
_MAX_RESENT = 10_000


class Uploader:
    """Drains journal and outbox to the hub, each on a thread of its own."""

    def __init__(self, journal: Journal, outbox: Outbox, transport: Transport, *, batch: int, backoff: Backoff) -> None:
        self._journal = journal
        self._outbox = outbox
        self._transport = transport
        self._resent: set[str] = set()
        self._verdicts = Lane(journal.pending, self._send, most=batch)
        self._pictures = Lane(outbox.pending, self._send_pictures, most=1)
        self.workers = (
            _Sender("verdicts", self._verdicts, journal, replace(backoff)).worker,
            _Sender("pictures", self._pictures, journal, replace(backoff)).worker,
        )

    def drain_once(self) -> int:
        """Send one batch of verdicts and one picture. Returns how many left this device. HubError: try later."""
        return self._verdicts.once() + self._pictures.once()

    def _send(self, batch: Sequence[Pending]) -> int:
        try:
            receipts = self._transport.send_verdicts([p.body for p in batch])
        except HubRefusalError as error:
            if len(batch) == 1:
                return self._refuse(batch[0], str(error))
            middle = len(batch) // 2  # one bad verdict must not hold up the others: halve until it is alone
            return self._send(batch[:middle]) + self._send(batch[middle:])
        good = _confirmed(batch, receipts)
        self._journal.mark_uploaded(good)
        if len(good) < len(batch):
            raise HubError(f"{len(batch) - len(good)} of {len(batch)} verdicts got no receipt with the right digest; kept")
        return len(good)

    def _refuse(self, pending: Pending, reason: str) -> int:
        log.error("hub refused a verdict", extra={"id": pending.id, "reason": reason})
        self._journal.mark_refused(pending.id)
        return 1

    def _send_pictures(self, pictures: Sequence[PendingPicture]) -> int:
        return sum(self._send_picture(picture) for picture in pictures)

    def _send_picture(self, picture: PendingPicture) -> int:
        try:
            data = picture.path.read_bytes()
        except OSError as error:
            return self._set_aside(picture, f"its file cannot be read: {error.strerror}")
        if sha256_hex(data) != picture.sha256:
            return self._set_aside(picture, "its file was damaged on this device's disk")
        note = PictureNote(sha256=picture.sha256, length=len(data), verdict_id=picture.verdict_id, why=picture.why)
        try:
            receipt = self._transport.send_picture(note, data)
        except HubRefusalError as error:
            return self._set_aside(picture, str(error))
        if receipt is None:
            return self._resend(picture)
        if receipt.sha256 != picture.sha256:
            raise HubError(f"picture {picture.sha256[:12]} got a receipt for {receipt.sha256[:12]}; kept, sent again")
        self._outbox.mark_sent(picture.verdict_id)
        return 1

    def _resend(self, picture: PendingPicture) -> int:
        """The hub does not hold the verdict it once gave a receipt for: that goes first, again."""
        if not self._journal.resend(picture.verdict_id):
            return self._set_aside(picture, "the hub has lost its verdict, which is not here any more")
        if picture.verdict_id in self._resent:
            raise HubError(f"the hub takes verdict {picture.verdict_id} and does not hold it; its picture is kept")
        if len(self._resent) >= _MAX_RESENT:
            self._resent.clear()
        self._resent.add(picture.verdict_id)
        log.warning("hub has lost a verdict; it is sent again", extra={"id": picture.verdict_id})
        return 1

    def _set_aside(self, picture: PendingPicture, reason: str) -> int:
        log.error("picture set aside", extra={"sha256": picture.sha256, "reason": reason})
        self._outbox.set_aside(picture.verdict_id)
        return 1


class _Sender(Generic[T]):
    """The thread of one lane."""

    def __init__(self, name: str, lane: Lane[T], journal: Journal, backoff: Backoff) -> None:
        self._lane = lane
        self._journal = journal
        self._backoff = backoff
        self.worker = Worker(f"upload of {name}", self._step)

    def _step(self) -> float:
        began = time.monotonic()
        try:
            moved = self._lane.once()
        except HubError as error:
            self.worker.note(str(error))
            pause = self._backoff.next_seconds()
            log.warning("upload failed", extra={"reason": str(error), "pause_seconds": round(pause, 1)})
            return pause
        self._backoff.reset()
        suspects = self._lane.suspects
        self.worker.note(
            f"the hub fails again and again on {suspects} items; they are tried again later" if suspects else None
        )
        if not moved:
            return _IDLE_SECONDS
        return max(_BREATH_SECONDS, _BREATHS * (time.monotonic() - began)) if self._journal.busy else 0.0


def _confirmed(batch: Sequence[Pending], receipts: Sequence[Receipt]) -> list[str]:
    said = {receipt.key: receipt.sha256 for receipt in receipts}
    return [p.id for p in batch if said.get(p.id) == p.digest]
