"""What is served: every flow of every product, on the product's own schedule."""

from inspection.contracts import Limits
from inspection.data.product import Product, SchedulePlan
from pipelines.deployments import deployments_of

PRODUCT = Product(
    name="lid",
    good_class="good",
    classes=["good", "dent"],
    limits=Limits(escape_rate=0.1, overkill_rate=0.1),
    schedule=SchedulePlan(collect="1 * * * *", sync_labels="2 * * * *", retrain="3 * * * *", watch="4 * * * *"),
)


def test_each_flow_is_scheduled_as_the_product_says() -> None:
    """Cron expressions come from the product; a rollout is carried on by hand or by its retrain."""
    crons = {
        made.flow_name: [schedule.schedule.cron for schedule in made.schedules or []] for made in deployments_of(PRODUCT)
    }
    assert crons == {
        "collect": ["1 * * * *"],
        "sync-labels": ["2 * * * *"],
        "retrain": ["3 * * * *"],
        "watch": ["4 * * * *"],
        "roll-out": [],
    }


def test_a_deployment_is_found_by_its_product_and_loaded_wherever_it_runs() -> None:
    """People and scripts start `retrain/lid`; the entry point is a module, not a path of one checkout."""
    for made in deployments_of(PRODUCT):
        assert made.name == "lid"
        assert made.parameters == {"product": "lid"}
        assert (made.entrypoint or "").startswith("pipelines.")
