"""Readable names of flow runs (what, for which product, when), and keys of artifacts."""

import hashlib
import re
from datetime import UTC, datetime

from prefect.runtime import flow_run


def run_name() -> str:
    """For example ``retrain lid-7 11-23 14:05:10`` (UTC)."""
    product = flow_run.parameters.get("product", "?")
    return f"{flow_run.flow_name} {product} {datetime.now(UTC):%m-%d %H:%M:%S}"


def artifact_key(kind: str, product: str) -> str:
    """``<kind>-<product>``. Prefect takes a to z, 0 to 9 and dashes only: where that changes a name, a piece of its hash
    keeps it apart from others."""
    plain = re.sub(r"[^a-z0-9]+", "-", product.lower()).strip("-")
    if plain != product:
        plain = f"{plain}-{hashlib.sha256(product.encode()).hexdigest()[:6]}"
    return f"{kind}-{plain}"
