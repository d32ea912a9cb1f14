"""What every flow opens first: settings from the state folder, the store, and a name for this holder.

This is a composition root: the only place of `pipelines` that reads the environment.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from inspection.settings import Settings, default_state, load_settings
from inspection.store.session import Store


@dataclass(frozen=True)
class Context:
    """Settings, store and who we are (host, process)."""

    settings: Settings
    store: Store
    holder: str


@contextmanager
def open_context() -> Iterator[Context]:
    """Open the store of ``$ESCAPEMENT_STATE`` for the length of a flow. Migrations are the hub's and `up`'s business."""
    settings = load_settings(default_state(os.environ), os.environ)
    store = Store.open(settings.database_url, settings.blob_url, migrate=False)
    try:
        yield Context(settings, store, f"{socket.gethostname()}:{os.getpid()}")
    finally:
        store.close()
