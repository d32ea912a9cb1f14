"""The station's page: what the loop shows it, what it may ask, the server.

Importing this loads the questions alone; the rest comes when it is named, and the web libraries when a page is served: an
agent without one must not pay for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from edge_agent.page.facts import Facts

if TYPE_CHECKING:
    from edge_agent.page.board import Board
    from edge_agent.page.server import PageServer

__all__ = ["Board", "Facts", "PageServer"]
_LATER = {"Board": "board", "PageServer": "server"}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
