"""Compare networks on one snapshot: nested runs in MLflow, one report.

Not on a schedule: it may take hours. Run it from Prefect's page (deployment ``compare-backbones/PRODUCT``), or as
``inspection compare-backbones``. A run that died is run again with the same parameters and the snapshot it named (labels
may have come since): what was finished is there.
"""

from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from inspection.data.snapshots import build_snapshot
from pipelines.context import open_context
from pipelines.naming import artifact_key, run_name


@task(name="freeze the labels")
def freeze(product: str) -> str:
    """The snapshot all networks are compared on; returns its id."""
    with open_context() as context:
        return build_snapshot(context.store, product).digest


@task(name="train side by side, and report")
def side_by_side(product: str, snapshot: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Every network, budget and seed; returns the conclusion, the report's place and the MLflow run."""
    from inspection.stages.candidate import folder_of_comparisons
    from inspection.stages.compare import Asked, Comparison, compare_in_mlflow
    from inspection.stages.material import Material

    with open_context() as context:
        material = Material.load(context.store, product, snapshot)
        below = folder_of_comparisons(context.settings)
        comparison = Comparison.of(material, Asked.model_validate(asked), below, context.settings.training)
        found = compare_in_mlflow(context.settings, comparison, get_run_logger().info)
    return {"conclusion": found.conclusion, "report": str(found.report), "run": found.run}


@flow(name="compare-backbones", flow_run_name=run_name)
def compare_backbones(
    product: str,
    snapshot: str | None = None,
    backbones: list[str] | None = None,
    budgets: list[int | None] | None = None,
    seeds: int = 3,
    epochs: int = 12,
    size: int = 224,
    pretrained: str = "hub",
    weights: dict[str, str] | None = None,
    device: bool = True,
) -> dict[str, Any]:
    """Learning curves of ``backbones`` (none named: one of each family) over ``budgets``: training pictures of each class,
    null for all. ``weights``: files by network, for those that do not begin with ``pretrained``; ``device``: whether to
    build and time what a device would run."""
    asked = {
        "backbones": backbones or [],
        "budgets": budgets or [50, 200, None],
        "seeds": seeds,
        "epochs": epochs,
        "size": size,
        "otherwise": pretrained,
        "pretrained": weights or {},
        "device": device,
    }
    found = side_by_side(product, snapshot or freeze(product), asked)
    said = [f"# Networks compared on {product}", *found["conclusion"], f"Report: {found['report']}"]
    create_markdown_artifact(
        key=artifact_key("compare-backbones", product),
        markdown="\n\n".join(said),
        description="Which network is best on these pictures, by how much, and what it costs",
    )
    return found
