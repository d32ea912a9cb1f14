"""Carry a product's rollout on until it is done or aborted: group after group, each proved by verdicts."""

import time
from typing import Any

from prefect import flow, get_run_logger, task

from pipelines.context import open_context
from pipelines.naming import run_name

STEP_SECONDS = 1.0


@task(name="project aliases into MLflow", retries=3, retry_delay_seconds=5)
def project(product: str) -> None:
    """Let MLflow's aliases follow our ledger."""
    from inspection.stages.aliases import project_aliases

    with open_context() as context:
        project_aliases(context.settings, context.store, product)


@flow(name="roll-out", flow_run_name=run_name)
def roll_out(product: str) -> dict[str, Any]:
    """Step the running rollout until it ends or is paused; returns its state. The rollout's own timeout ends it."""
    from inspection.stages.deploy import advance_rollout, rollout_state

    log = get_run_logger()
    with open_context() as context:
        while True:
            for event in advance_rollout(context.settings, context.store, product, context.holder):
                log.info("%s", event)
            state = rollout_state(context.store, product)
            if state.state != "running":
                project(product)
                log.info("rollout of %s: %s", product, state.in_words())
                return state.model_dump(mode="json")
            time.sleep(STEP_SECONDS)
