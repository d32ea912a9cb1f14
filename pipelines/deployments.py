"""The process that serves the scheduled flows: one deployment per flow and product, kept in step with the store.

Run as ``python -m pipelines.deployments`` (`inspection up` does). It writes ``run/flows.ready`` in the state folder once
every product's deployments are registered, and touches it at each look at the store: a stale file means a hung process.
Schedules stay active when this process stops: a second `up` on the same folder carries on.
"""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from inspection.data.product import Product
from inspection.data.products import list_products
from inspection.settings import Settings, default_state, load_settings
from inspection.store.session import Store
from pipelines.collect import collect
from pipelines.compare_backbones import compare_backbones
from pipelines.retrain import retrain
from pipelines.roll_out import roll_out
from pipelines.sync_labels import sync_labels
from pipelines.watch import watch

LOOK_SECONDS = 5.0
READY_FILE = Path("run") / "flows.ready"

log = logging.getLogger("escapement.flows")


def deployments_of(product: Product) -> list[RunnerDeployment]:
    """The deployments of one product, with its cron schedules (UTC). Pure."""
    scheduled: list[tuple[Flow[..., Any], str, str]] = [
        (collect, product.schedule.collect, "Choose pictures worth asking about and create labelling tasks"),
        (sync_labels, product.schedule.sync_labels, "Pull the labels that changed"),
        (retrain, product.schedule.retrain, "Retrain when enough new labels wait; gate, build, sign, roll out"),
        (watch, product.schedule.watch, "Look for silent devices, open ledgers, drift; carry on an interrupted rollout"),
    ]
    made = [_deployment(flow, product, description, cron) for flow, cron, description in scheduled]
    by_hand: list[tuple[Flow[..., Any], str]] = [
        (roll_out, "Carry the current rollout on until it is done or aborted"),
        (compare_backbones, "Train families side by side on this product's pictures; a report says which is best"),
    ]
    return [*made, *(_deployment(flow, product, description, None) for flow, description in by_hand)]


def _deployment(flow: Flow[..., Any], product: Product, description: str, cron: str | None) -> RunnerDeployment:
    """Overlapping runs are kept apart by our own leases: a slot of Prefect's would stay taken by a killed worker."""
    return RunnerDeployment.from_flow(
        flow,
        name=product.name,
        cron=cron,
        parameters={"product": product.name},
        description=description,
        tags=["escapement", product.name],
        entrypoint_type=EntrypointType.MODULE_PATH,  # found wherever the working folder is
    )


def _products(settings: Settings) -> dict[str, Product]:
    store = Store.open(settings.database_url, settings.blob_url, migrate=False)
    try:
        with store.begin() as session:
            return {product.name: product for product in list_products(session)}
    finally:
        store.close()


async def serve_product(runner: Runner, product: Product) -> None:
    """One product's deployments. What Prefect refuses of one, like a schedule it cannot read, stops no other's."""
    try:
        made = deployments_of(product)
    except ValueError as error:
        log.error("product %s is not served until it is corrected: %s", product.name, error)  # noqa: TRY400 - in words
        return
    for deployment in made:
        await runner.aadd_deployment(deployment)
    log.info("serving the flows of product %s", product.name)


async def _keep_in_step(runner: Runner, settings: Settings) -> None:
    known: dict[str, str] = {}
    ready = settings.state / READY_FILE
    ready.parent.mkdir(parents=True, exist_ok=True)
    while True:
        products = await asyncio.to_thread(_products, settings)
        for name, product in products.items():
            if known.get(name) != product.digest:
                known[name] = product.digest
                await serve_product(runner, product)
        ready.touch()
        await asyncio.sleep(LOOK_SECONDS)


async def serve(settings: Settings) -> None:
    """Serve until cancelled. An error in either half ends both: the supervisor starts the process again."""
    runner = Runner(name="escapement", pause_on_shutdown=False, limit=4, query_seconds=2)
    async with asyncio.TaskGroup() as group:
        group.create_task(_keep_in_step(runner, settings))
        group.create_task(runner.start())


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings = load_settings(default_state(os.environ), os.environ)
    try:
        asyncio.run(serve(settings))
    except KeyboardInterrupt:
        log.info("stopped")


if __name__ == "__main__":
    main()
