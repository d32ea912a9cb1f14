"""Readable names of flow runs: what, for which product, when."""

from datetime import UTC, datetime

from prefect.runtime import flow_run


def run_name() -> str:
    """For example ``retrain lid-7 11-23 14:05:10`` (UTC)."""
    product = flow_run.parameters.get("product", "?")
    return f"{flow_run.flow_name} {product} {datetime.now(UTC):%m-%d %H:%M:%S}"
