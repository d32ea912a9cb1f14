"""The composition of the hub's app: routes, middleware, answers to errors. Nothing happens at import."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from inspection.hub import agents, faults, health, people
from inspection.hub.middleware import Measured
from inspection.hub.state import Hub
from inspection.release.signing import load_or_create_keys, trust_root
from inspection.settings import Settings
from inspection.store.session import Store

STATIC = Path(__file__).parent / "static"


def create_app(settings: Settings, store: Store) -> FastAPI:
    """The hub as an ASGI app over an open store. The store stays the caller's to close.

    Reads the public keys (and makes a key pair in ``settings.keys`` the first time). Raises BundleError when the keys
    cannot be read.
    """
    trust = trust_root(load_or_create_keys(settings.keys))
    hub = Hub(settings, store, trust)
    if store.engine.dialect.name == "sqlite":
        hub.writing.total_tokens = 1  # it has one writer: waiting here is fair, waiting there is sleeping and trying again

    # No generated documentation pages: they would load scripts from elsewhere.
    app = FastAPI(title="Escapement hub", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.hub = hub
    app.add_middleware(Measured, meters=hub.meters)
    faults.install(app)
    app.include_router(agents.router)
    app.include_router(health.router)
    app.include_router(people.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app
