"""Alembic migrations of the store, run from code by `inspection.store.schema`."""
