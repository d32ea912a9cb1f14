"""A part's passport as a script reads it: the same evidence as on the hub's page."""

from typing import Any

from inspection.errors import UsageError
from inspection.hub.passport import VerdictView, read_passport
from inspection.hub.state import Hub
from inspection.release.signing import load_or_create_keys, trust_root
from inspection.settings import Settings
from inspection.store.session import Store


def passport_of(settings: Settings, store: Store, part: str) -> list[dict[str, Any]]:
    """Everything known of a part, newest verdict first. Raises UsageError when nobody inspected it."""
    views = read_passport(Hub(settings, store, trust_root(load_or_create_keys(settings.keys))), part)
    if not views:
        raise UsageError(f"no verdict is about part {part!r}: check its id, or whether its station has uploaded yet")
    return [_one(settings, view) for view in views]


def _one(settings: Settings, view: VerdictView) -> dict[str, Any]:
    return {
        "verdict": view.verdict.model_dump(mode="json"),
        "picture": settings.hub_url + view.picture_path if view.picture else None,
        "bundle": view.manifest.model_dump(mode="json", exclude={"files", "self_test"}) if view.manifest else None,
        "recipe": view.recipe.model_dump(mode="json") if view.recipe else None,
        "labels": [{"kind": row.kind, "label": row.label, "by": row.annotator, "at": row.made_at} for row in view.labels],
    }
