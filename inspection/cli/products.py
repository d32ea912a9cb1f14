"""The commands about what is inspected, and where: pictures, products, stations, devices."""

import sys
from pathlib import Path
from typing import Any

import click

from inspection.cli.common import json_option, opened_store, settings_of, show, show_all, state_option


@click.command("import-images")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--product", required=True)
@click.option("--good", required=True, help="Name of the good class.")
@state_option
@json_option
def import_images(directory: Path, product: str, good: str, state: Path | None, as_json: bool) -> None:
    """Import a folder of labelled pictures: class-per-folder, or with labels.csv (path,label[,split,group,part]).

    Example: inspection import-images photos/ --product lid --good ok
    """
    from inspection.stages.bring_in import import_directory

    settings = settings_of(state)
    with opened_store(settings) as store, click.progressbar(length=1, label="importing", file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        report = import_directory(settings, store, directory, product, good, progress)
    show(report.as_dict(), as_json, report.in_words())


@click.group()
def product() -> None:
    """Products and their stations: what is inspected where, and how its loop is tuned."""


@product.command("list")
@state_option
@json_option
def product_list(state: Path | None, as_json: bool) -> None:
    """Every product with its classes and stations. Example: inspection product list"""
    from inspection.stages.fleet import products

    with opened_store(settings_of(state)) as store:
        show_all(
            products(store), as_json, "no product yet: `inspection product set` or `inspection import-images` makes one"
        )


@product.command("stations")
@click.option("--product", "product_name", default=None, help="Only those of this product.")
@state_option
@json_option
def product_stations(product_name: str | None, state: Path | None, as_json: bool) -> None:
    """Every station with its mode, audit share and devices. Example: inspection product stations --product lid"""
    from inspection.stages.fleet import stations

    with opened_store(settings_of(state)) as store:
        show_all(stations(store, product_name), as_json, "no station yet: `inspection product add-station` adds one")


@product.command("enrolment-code")
@state_option
def product_enrolment_code(state: Path | None) -> None:
    """Print the code devices enrol with. Example: inspection product enrolment-code --state /srv/escapement"""
    from inspection.stages.fleet import enrolment_code

    settings = settings_of(state)
    with opened_store(settings) as store:
        click.echo(enrolment_code(settings, store))


@product.command("show")
@click.argument("name")
@state_option
def product_show(name: str, state: Path | None) -> None:
    """Print a product's definition as JSON. Example: inspection product show lid"""
    from inspection.data.products import load_product

    with opened_store(settings_of(state)) as store, store.begin(read_only=True) as session:
        click.echo(load_product(session, name).model_dump_json(indent=1))


@product.command("set")
@click.argument("file", type=click.File("rb"))
@state_option
def product_set(file: Any, state: Path | None) -> None:
    """Create or change a product from a JSON file ("-": standard input). Example: inspection product set lid.json"""
    from inspection.stages.define import define_product

    with opened_store(settings_of(state)) as store:
        defined = define_product(store, file.read(), getattr(file, "name", "standard input"))
    for warning in defined.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(defined.in_words())


@product.command("add-station")
@click.argument("station")
@click.option("--product", "product_name", required=True)
@click.option(
    "--mode",
    type=click.Choice(["collect", "shadow", "judge"]),
    default=None,
    help="Default: a new station collects, an existing one stays as it is.",
)
@click.option(
    "--audit-share",
    type=click.FloatRange(0, 1),
    default=None,
    help="Share of passed parts whose pictures are sent. Default: 0.02, or as it is.",
)
@state_option
def add_station(station: str, product_name: str, mode: str | None, audit_share: float | None, state: Path | None) -> None:
    """Add an inspection point, or change one, and print how to enrol its agent.

    Example: inspection product add-station S1 --product lid
    """
    from inspection.data.products import add_station as add

    settings = settings_of(state)
    with opened_store(settings) as store, store.begin() as session:
        row = add(session, station, product_name, mode=mode, audit_share=audit_share)
    code = settings.secrets.enrolment_code.get_secret_value()
    click.echo(
        f"station {station} is there, in mode {row.mode}, with audit share {row.audit_share:g}. On its computer run:"
    )
    click.echo(f"  edge-agent enrol --hub {settings.hub_url} --code {code} --device {station} --station {station}")


@product.command("set-challenger")
@click.argument("station")
@click.argument("bundle")
@state_option
def set_challenger(station: str, bundle: str, state: Path | None) -> None:
    """Let a signed bundle ("none": no more) judge beside a station's own, answering nobody: shadow, inside the takt.

    Example: inspection product set-challenger S1 9c41...
    """
    from inspection.release.assignments import set_challenger as challenge

    with opened_store(settings_of(state)) as store, store.begin() as session:
        challenge(session, station, None if bundle == "none" else bundle)
    click.echo(f"station {station} gets it with its next assignment, at the next watch run")


@product.command("retire-device")
@click.argument("device")
@state_option
def retire_device(device: str, state: Path | None) -> None:
    """Forget a device that was replaced; rollouts no longer wait for it. Example: inspection product retire-device cam-1"""
    from inspection.data.products import retire_device as retire

    with opened_store(settings_of(state)) as store, store.begin() as session:
        station = retire(session, device)
    click.echo(f"device {device} of station {station} is retired: its token is void, its verdicts stay")


COMMANDS = (import_images, product)
