"""Look at the fleet and the figures; carry on a rollout whose flow died."""

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from inspection.errors import EscapementError, LeaseError
from inspection.monitoring.watch import watch as look
from inspection.stages.deploy import advance_rollout
from pipelines.context import open_context
from pipelines.naming import artifact_key, run_name
from pipelines.roll_out import project


@flow(name="watch", flow_run_name=run_name)
def watch(product: str) -> dict[str, Any]:
    """Report silent devices, open ledgers, a rising ERROR share and drift as one artifact."""
    log = get_run_logger()
    with open_context() as context:
        try:
            events = advance_rollout(context.settings, context.store, product, context.holder)
            if events:
                project(product)
        except LeaseError as busy:
            events = []
            log.info("the rollout is in other hands: %s", busy)
        except EscapementError as error:  # the fleet is looked at all the same
            events = [f"it cannot be carried on: {error}"]
            log.error("the rollout cannot be carried on: %s", error)  # noqa: TRY400 - in words
        findings = look(context.store, product, poll_seconds=context.settings.agent_poll_seconds)
    lines = [f"* {finding.message}" for finding in findings] + [f"* rollout: {event}" for event in events]
    create_markdown_artifact(
        key=artifact_key("watch", product),
        markdown=f"# Watch of {product}\n\n" + ("\n".join(lines) or "Nothing to report."),
        description="What the last look at the fleet found",
    )
    return {"findings": len(findings), "rollout_events": len(events)}
