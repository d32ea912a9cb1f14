"""How column types are written down in a migration: as the plain types that the database sees."""

from typing import Any, Literal

from inspection.store.tables import UtcDateTime


def render_item(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Alembic's hook: `UtcDateTime` is a time with a zone; everything else as Alembic writes it."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False
