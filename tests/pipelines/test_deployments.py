"""What is served: every flow of every product, on the product's own schedule."""

import asyncio
import logging
import re

import pytest
from prefect.runner import Runner

from inspection.contracts import Limits
from inspection.data.product import Product, SchedulePlan
from pipelines.deployments import deployments_of, serve_product
from pipelines.naming import artifact_key

PRODUCT = Product(
    name="lid",
    good_class="good",
    classes=["good", "dent"],
    limits=Limits(escape_rate=0.1, overkill_rate=0.1),
    schedule=SchedulePlan(collect="1 * * * *", sync_labels="2 * * * *", retrain="3 * * * *", watch="4 * * * *"),
)


def test_each_flow_is_scheduled_as_the_product_says() -> None:
    """Cron expressions come from the product; a rollout and a comparison are begun by hand."""
    crons = {
        made.flow_name: [schedule.schedule.cron for schedule in made.schedules or []] for made in deployments_of(PRODUCT)
    }
    assert crons == {
        "collect": ["1 * * * *"],
        "sync-labels": ["2 * * * *"],
        "retrain": ["3 * * * *"],
        "watch": ["4 * * * *"],
        "roll-out": [],
        "compare-backbones": [],
    }


def test_a_deployment_is_found_by_its_product_and_loaded_wherever_it_runs() -> None:
    """People and scripts start `retrain/lid`; the entry point is a module, not a path of one checkout."""
    for made in deployments_of(PRODUCT):
        assert made.name == "lid"
        assert made.parameters == {"product": "lid"}
        assert (made.entrypoint or "").startswith("pipelines.")


def test_a_schedule_nobody_can_read_is_told_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """The process that serves all products goes on."""
    broken = PRODUCT.model_copy(update={"schedule": SchedulePlan(watch="every now and then")})
    with caplog.at_level(logging.ERROR):
        asyncio.run(serve_product(Runner(name="test"), broken))
    assert "product lid is not served until it is corrected" in caplog.text


def test_every_product_has_artifacts_of_its_own_under_a_key_that_prefect_takes() -> None:
    """Names that differ in what a key cannot hold stay apart; a plain one stays readable."""
    names = ["lid", "Lid", "lid_7", "lid.7", "lid-7"]
    keys = [artifact_key("watch", name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", key) for key in keys)
    assert keys[0] == "watch-lid"
