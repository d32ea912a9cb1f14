"""Store and forward: verdicts first, then the pictures of verdicts the hub holds.

Invariants: nothing local is marked or deleted without a receipt that names it with the right digest; what the hub will
never take is set aside and counted, alone, not with its batch; everything else is tried again for ever, ever slower.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from edge_agent.errors import HubError, HubRefusalError
from edge_agent.journal import Journal, Pending
from edge_agent.outbox import Outbox, PendingPicture
from edge_agent.supervise import Worker
from edge_agent.transport import Transport
from inspection.contracts import PictureNote, Receipt, sha256_hex

log = logging.getLogger(__name__)

_PICTURES_PER_ROUND = 8
_IDLE_SECONDS = 0.5


@dataclass
class Backoff:
    """Capped exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015)."""

    base_seconds: float
    cap_seconds: float
    failures: int = 0
    jitter: Random = field(default_factory=Random)

    def next_seconds(self) -> float:
        """The pause after one more failure."""
        ceiling = min(self.cap_seconds, self.base_seconds * 2 ** min(self.failures, 30))
        self.failures += 1
        return self.jitter.uniform(0.0, ceiling)

    def reset(self) -> None:
        """After a success."""
        self.failures = 0


class Uploader:
    """Drains journal and outbox to the hub."""

    def __init__(self, journal: Journal, outbox: Outbox, transport: Transport, *, batch: int, backoff: Backoff) -> None:
        self._journal = journal
        self._outbox = outbox
        self._transport = transport
        self._batch = batch
        self._backoff = backoff
        self.worker = Worker("uploader", self._step)

    def _step(self) -> float:
        try:
            moved = self.drain_once()
        except HubError as error:
            self.worker.note(str(error))
            pause = self._backoff.next_seconds()
            log.warning("upload failed", extra={"reason": str(error), "pause_seconds": round(pause, 1)})
            return pause
        self._backoff.reset()
        self.worker.note(None)
        self._journal.trim()
        return 0.0 if moved else _IDLE_SECONDS

    def drain_once(self) -> int:
        """Send one batch of verdicts and a few pictures. Returns how many left this device. HubError: try later."""
        verdicts = self._journal.pending(self._batch)
        moved = self._send(verdicts) if verdicts else 0
        return moved + sum(self._send_picture(p) for p in self._outbox.pending(_PICTURES_PER_ROUND))

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
        self._outbox.set_aside(pending.id)
        return 1

    def _send_picture(self, picture: PendingPicture) -> int:
        try:
            data = picture.path.read_bytes()
        except FileNotFoundError:
            return self._set_aside(picture, "its file is gone")
        if sha256_hex(data) != picture.sha256:
            return self._set_aside(picture, "its file was damaged on this device's disk")
        note = PictureNote(sha256=picture.sha256, length=len(data), verdict_id=picture.verdict_id, why=picture.why)
        try:
            receipt = self._transport.send_picture(note, data)
        except HubRefusalError as error:
            return self._set_aside(picture, str(error))
        if receipt.sha256 != picture.sha256:
            raise HubError(f"picture {picture.sha256[:12]} got a receipt for {receipt.sha256[:12]}; kept, sent again")
        self._outbox.delete_uploaded(picture.verdict_id)
        return 1

    def _set_aside(self, picture: PendingPicture, reason: str) -> int:
        log.error("picture set aside", extra={"sha256": picture.sha256, "reason": reason})
        self._outbox.set_aside(picture.verdict_id)
        return 1


def _confirmed(batch: Sequence[Pending], receipts: Sequence[Receipt]) -> list[str]:
    said = {receipt.key: receipt.sha256 for receipt in receipts}
    return [p.id for p in batch if said.get(p.id) == p.digest]
