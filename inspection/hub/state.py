"""What one running hub holds, and how a request gets at it."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from inspection.contracts import TrustRoot
from inspection.hub.meters import Meters
from inspection.hub.throttle import Throttle
from inspection.hub.uploads import UploadBudget
from inspection.settings import Settings
from inspection.store.session import Store


@dataclass(frozen=True)
class Hub:
    """One hub: its settings, its store, whom devices shall believe, and its counters."""

    settings: Settings
    store: Store
    trust: TrustRoot
    meters: Meters = field(default_factory=Meters)
    wrong_codes: Throttle = field(default_factory=Throttle)
    wrong_passwords: Throttle = field(default_factory=Throttle)
    budget: UploadBudget = field(default_factory=UploadBudget)


async def _get_hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


HubDep = Annotated[Hub, Depends(_get_hub)]
