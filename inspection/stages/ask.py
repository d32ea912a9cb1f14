"""Asking operators and hearing them: choose pictures, create tasks, pull answers.

Loads neither torch nor MLflow. The Label Studio project is created and kept up to date on the way.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict

from inspection.data.product import Product
from inspection.data.products import load_product
from inspection.data.selection import choose, open_tasks
from inspection.hub.links import picture_link
from inspection.labelling.closing import close_dead_ends
from inspection.labelling.port import LabelStudio
from inspection.labelling.project import ensure_project
from inspection.labelling.pull import pull_labels
from inspection.labelling.push import push_tasks
from inspection.labelling.studio import connect
from inspection.settings import Settings
from inspection.store.session import Store


class AskReport(BaseModel):
    """What a collect run did."""

    model_config = ConfigDict(frozen=True)

    project_id: int
    chosen: dict[str, int]  # why -> pictures
    closed: int  # open questions found skipped or deleted; looked for when they stand in the way of new ones
    pushed: dict[str, Any]

    def in_words(self) -> str:
        """One line for people."""
        reasons = ", ".join(f"{count} {why}" for why, count in sorted(self.chosen.items())) or "nothing new"
        closed = f"; closed {self.closed} skipped or deleted questions" if self.closed else ""
        return f"asked about {reasons}; Label Studio project {self.project_id}: {self.pushed}{closed}"


class PullWords(BaseModel):
    """What a pull did."""

    model_config = ConfigDict(frozen=True)

    project_id: int
    pulled: dict[str, Any]

    def in_words(self) -> str:
        """One line for people."""
        return ", ".join(f"{name} {value}" for name, value in self.pulled.items())


@contextmanager
def _studio(settings: Settings) -> Iterator[LabelStudio]:
    studio = connect(settings.label_studio_url, settings.secrets.label_studio_token.get_secret_value())
    try:
        yield studio
    finally:
        studio.close()


def _product(store: Store, name: str) -> Product:
    with store.begin(read_only=True) as session:
        return load_product(session, name)


def ask_operators(settings: Settings, store: Store, product_name: str, rng: random.Random) -> AskReport:
    """Choose pictures worth asking about and make one task of each; what a dead run left half done is finished."""
    product = _product(store, product_name)
    with _studio(settings) as studio:
        project_id = ensure_project(studio, product)
        with store.begin(read_only=True) as session:
            crowded = open_tasks(session, product) + product.collect.max_tasks_per_run > product.collect.max_open_tasks
        closed = close_dead_ends(store, studio, product, project_id) if crowded else 0
        with store.begin(read_only=True) as session:
            choices = choose(session, product, budget=product.collect.max_tasks_per_run, rng=rng)
        pushed = push_tasks(store, studio, product, project_id, choices, lambda sha256: picture_link(settings, sha256))
    chosen: dict[str, int] = {}
    for choice in choices:
        chosen[choice.why] = chosen.get(choice.why, 0) + 1
    return AskReport(project_id=project_id, chosen=chosen, closed=closed, pushed=asdict(pushed))


def pull_answers(
    settings: Settings,
    store: Store,
    product_name: str,
    *,
    allow_mass_retraction: bool = False,
    restore_interface: bool = False,
) -> PullWords:
    """Record what changed in Label Studio since the watermark (``allow_mass_retraction``: see `pull_labels`;
    ``restore_interface``: see `ensure_project`)."""
    product = _product(store, product_name)
    with _studio(settings) as studio:
        project_id = ensure_project(studio, product, restore=restore_interface)
        report = pull_labels(store, studio, product, project_id, allow_mass_retraction=allow_mass_retraction)
    return PullWords(project_id=project_id, pulled=asdict(report))
