"""A web address that is told every verdict: for dashboards and for a manufacturing execution system.

Invariants: verdicts arrive in their order, each at least once, as the bytes of its canonical JSON (without the picture's
digest, which comes later) under its id as ``Idempotency-Key``; nobody waits for the network; what waits is bounded, the
oldest is dropped and counted. The journal and the hub keep every verdict: this is no second record.

The receiver is informed; it is not in control. An HTTP request that is late, retried or lost must not decide about a
part, so nothing is posted between verdicts: `begin` and `safe` say nothing, and no post is an OK that stands.
"""

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edge_agent.authorities import trusted
from edge_agent.errors import UsageError
from edge_agent.lanes import Backoff
from edge_agent.supervise import Worker
from edge_agent.trigger import Request
from edge_agent.wiring import Webhook, secret
from inspection.contracts import Verdict

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

_LAST_POSTS_SECONDS = 2.0
_JOIN_SECONDS = 0.3  # of them, for a thread that is just done
_LOOK_SECONDS = 0.5
_MAX_ANSWER_BYTES = 64 * 1024  # read so that the connection can be used again; nothing in it matters
_AGAIN = frozenset({408, 429})  # of the 4xx: not now; the others: never


class WebhookSignal:
    """Posts verdicts from a thread of its own. UsageError when address or token cannot be right."""

    def __init__(self, settings: Webhook, *, backoff: Backoff | None = None) -> None:
        self.address = _address(settings.url)  # without what may be secret in it
        self._url = settings.url
        self._client = _client(settings)
        self._timeout = settings.timeout_seconds
        self._most = settings.queue_verdicts
        self._backoff = backoff or Backoff(0.5, 30.0)
        self._changed = threading.Condition()
        self._queue: deque[tuple[str, bytes]] = deque()
        self._not_before = 0.0
        self._counts = {"posted": 0, "dropped": 0, "refused": 0}
        self._closing = self._gave_up = False
        self.worker = Worker("webhook", self._step)
        self.worker.start()

    def begin(self, request: Request) -> None:
        """Nothing: the receiver is informed of verdicts."""

    def tell(self, verdict: Verdict) -> None:
        """Post it soon. When the receiver is away for long, the oldest is dropped and counted."""
        with self._changed:
            self._queue.append((verdict.id, verdict.canonical()))
            while len(self._queue) > self._most:
                self._queue.popleft()
                self._counts["dropped"] += 1
            self._changed.notify_all()

    def safe(self, reason: str) -> None:
        """Nothing: no OK stands with the receiver that could be taken back."""

    def close(self) -> None:
        """Post what waits, for at most two seconds; what is left is dropped, counted and logged. May be called twice."""
        until = time.monotonic() + _LAST_POSTS_SECONDS
        with self._changed:
            if self._closing:
                return
            self._closing, self._not_before = True, 0.0
            self._backoff.reset()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._queue, _LAST_POSTS_SECONDS - _JOIN_SECONDS)
            left, self._gave_up = len(self._queue), True
            self._queue.clear()
            self._counts["dropped"] += left
        self.worker.stop(max(0.0, until - time.monotonic()))
        self._client.close()
        if left:
            log.warning("webhook was not told everything", extra={"left": left, "reason": self.failure})

    @property
    def failure(self) -> str | None:
        """What is wrong, for the report; None when nothing is."""
        return self.worker.failure

    def health(self) -> dict[str, str | float | int | bool | None]:
        """For the station's page: how many verdicts wait, were posted, dropped (too many waited), refused."""
        with self._changed:
            numbers = {"waiting": len(self._queue), **self._counts}
        failure = self.failure
        return {"kind": "webhook", "ok": failure is None, "to": self.address, **numbers, "failure": failure}

    def _step(self) -> float:
        with self._changed:
            pause = max(0.0, self._not_before - time.monotonic()) if self._queue else _LOOK_SECONDS
            if not self._changed.wait_for(self._is_due, min(pause, _LOOK_SECONDS)):
                return 0.0
            first = self._queue[0]
        self._settle(first, *self._post(*first))
        return 0.0

    def _is_due(self) -> bool:
        return bool(self._queue) and time.monotonic() >= self._not_before

    def _post(self, verdict_id: str, body: bytes) -> tuple[bool | None, str | None]:
        """Whether it was taken (True), refused for good (False), or is to be tried again (None); and what was wrong."""
        import httpx

        try:
            headers = {"Content-Type": "application/json", "Idempotency-Key": verdict_id}
            with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
                status = answer.status_code
                _read_out(answer, time.monotonic() + self._timeout)
        except httpx.TransportError as error:
            return None, f"webhook {self.address} cannot be reached: {type(error).__name__}: {error}; tried again"
        said = f"webhook {self.address} answered {status}"
        if 200 <= status < 300:
            return True, None
        if 300 <= status < 400:
            return None, f"{said}: redirects are not followed; set wiring.webhook.url to where it leads"
        if 400 <= status < 500 and status not in _AGAIN:
            hint = "is the token right?" if status in (401, 403) else "is the address right?"
            return False, f"{said}: it takes no such verdict; {hint}"
        return None, f"{said}; tried again"

    def _settle(self, first: tuple[str, bytes], taken: bool | None, trouble: str | None) -> None:
        with self._changed:
            if self._gave_up:  # nobody waits for the answer any more, and the connection was cut: its error says nothing
                return
            if taken is None:
                self._not_before = time.monotonic() + self._backoff.next_seconds()
            else:
                self._backoff.reset()
                if self._queue and self._queue[0] is first:  # else it was dropped meanwhile, and counted so
                    self._queue.popleft()
                    self._counts["posted" if taken else "refused"] += 1
            self._changed.notify_all()
        self._note(trouble, first[0] if taken is False else None)

    def _note(self, trouble: str | None, refused: str | None) -> None:
        if refused is not None:
            log.error("verdict was refused", extra={"id": refused, "reason": trouble})
        elif trouble is not None and trouble != self.failure:
            log.warning("webhook trouble", extra={"reason": trouble})
        self.worker.note(trouble)


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"wiring.webhook.url is no address: {error}") from error
    if not host:
        raise UsageError("wiring.webhook.url names no host; it looks like https://host/path")
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}"


def _client(settings: Webhook) -> "httpx.Client":
    import httpx  # here: it is heavy to load, and a station without a webhook needs none of it

    token = secret(settings.token_file)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        httpx.URL(settings.url)
        return httpx.Client(headers=headers, timeout=settings.timeout_seconds, follow_redirects=False, verify=trusted())
    except httpx.InvalidURL as error:
        raise UsageError(f"wiring.webhook.url is no address: {error}") from error
    except UnicodeEncodeError as error:
        raise UsageError(f"{settings.token_file} holds signs that no HTTP header can carry; put the token there") from error


def _read_out(answer: "httpx.Response", until: float) -> None:
    """Read a short answer to its end; leave a long or a slow one, which costs its connection."""
    got = 0
    for chunk in answer.iter_raw():
        got += len(chunk)
        if got > _MAX_ANSWER_BYTES or time.monotonic() > until:
            return
