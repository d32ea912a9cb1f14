"""What one running hub holds, and how a request gets at it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request

from inspection.contracts import TrustRoot
from inspection.hub.meters import Meters
from inspection.hub.throttle import Throttle
from inspection.hub.uploads import UploadBudget
from inspection.settings import Settings
from inspection.store.session import Store

DECODERS = 4  # a picture of 64 million pixels takes 200 MB while it is decoded
WRITERS = 8
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Hub:
    """One hub: its settings, its store, whom devices shall believe, its counters, and how much it does at once.

    Work that waits its turn waits on the event loop, so that uploads never take the threads from under the polls.
    """

    settings: Settings
    store: Store
    trust: TrustRoot
    meters: Meters = field(default_factory=Meters)
    wrong_codes: Throttle = field(default_factory=Throttle)
    wrong_passwords: Throttle = field(default_factory=Throttle)
    budget: UploadBudget = field(default_factory=UploadBudget)
    decoding: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(DECODERS))
    writing: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(WRITERS))


async def _get_hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


async def in_turn(
    limiter: CapacityLimiter, work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Result:
    """Run ``work`` in a thread, at most as many at once as the limiter allows."""
    return await to_thread.run_sync(lambda: work(*args, **kwargs), limiter=limiter)


HubDep = Annotated[Hub, Depends(_get_hub)]
