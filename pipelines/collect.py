"""Choose pictures worth asking about and make them labelling tasks, pre-annotated. One picture, one task, for ever."""

import random
from typing import Any

from prefect import flow, get_run_logger

from inspection.stages.ask import ask_operators
from pipelines.context import open_context
from pipelines.naming import run_name


@flow(name="collect", flow_run_name=run_name, retries=2, retry_delay_seconds=10)
def collect(product: str) -> dict[str, Any]:
    """Create at most the product's budget of tasks; running it twice creates nothing twice."""
    log = get_run_logger()
    with open_context() as context:
        report = ask_operators(context.settings, context.store, product, random.Random())  # noqa: S311 - a sample, not a secret
    log.info("%s", report.in_words())
    return report.model_dump()
