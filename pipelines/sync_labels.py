"""Pull the labels that changed since the watermark; a dead or half-answering Label Studio leaves it where it was."""

from typing import Any

from prefect import flow, get_run_logger

from inspection.stages.ask import pull_answers
from pipelines.context import open_context
from pipelines.naming import run_name


@flow(name="sync-labels", flow_run_name=run_name, retries=2, retry_delay_seconds=10)
def sync_labels(product: str) -> dict[str, Any]:
    """Record new, corrected and withdrawn answers, exactly once each."""
    log = get_run_logger()
    with open_context() as context:
        report = pull_answers(context.settings, context.store, product)
    log.info("%s", report.in_words())
    return report.model_dump()
