"""Look at the fleet and the figures; carry on a rollout whose flow died; keep MLflow's aliases in step with our ledger."""

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from inspection.errors import EscapementError, LeaseError
from inspection.monitoring.watch import watch as look
from inspection.stages.deploy import advance_rollout
from pipelines.context import Context, open_context
from pipelines.naming import artifact_key, run_name
from pipelines.roll_out import project


def _carry_on(context: Context, product: str) -> list[str]:
    """One look at the running rollout: what happened, in words."""
    try:
        return advance_rollout(context.settings, context.store, product, context.holder)
    except LeaseError as busy:
        get_run_logger().info("the rollout is in other hands: %s", busy)
        return []
    except EscapementError as error:  # the fleet is looked at all the same
        get_run_logger().error("the rollout cannot be carried on: %s", error)
        return [f"it cannot be carried on: {error}"]


def _align(product: str) -> list[str]:
    """Aliases follow the ledger, also after they were moved by hand and after a flow that died between the two."""
    try:
        project(product)
    except EscapementError as error:  # the fleet is looked at all the same
        get_run_logger().error("aliases were not projected: %s", error)
        return [f"MLflow's aliases may say something else than our ledger: {error}"]
    return []


@flow(name="watch", flow_run_name=run_name)
def watch(product: str) -> dict[str, Any]:
    """Report silent devices, open ledgers, a rising ERROR share and drift as one artifact."""
    with open_context() as context:
        events = _carry_on(context, product)
        found = _align(product)
        found += [f.message for f in look(context.store, product, poll_seconds=context.settings.agent_poll_seconds)]
    lines = [f"* {message}" for message in found] + [f"* rollout: {event}" for event in events]
    create_markdown_artifact(
        key=artifact_key("watch", product),
        markdown=f"# Watch of {product}\n\n" + ("\n".join(lines) or "Nothing to report."),
        description="What the last look at the fleet found",
    )
    return {"findings": len(found), "rollout_events": len(events)}
