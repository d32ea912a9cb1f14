"""The wires of one station: what starts an inspection, who is told, and how the connections are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge_agent.camera.port import Health
from edge_agent.signals import Signal
from edge_agent.trigger import Trigger


@dataclass(frozen=True)
class Wires:
    """``failures`` are sentences for the report; ``health`` is what the station's page shows, by connection."""

    trigger: Trigger
    signal: Signal
    failures: Callable[[], list[str]] = list
    health: Callable[[], Mapping[str, Health]] = dict
