"""The commands to look with before anything is trained: networks, and what they would be shown."""

from pathlib import Path
from typing import Any

import click

from inspection.cli.common import json_option, opened_store, settings_of, show, state_option


@click.command()
@click.option("--family", default=None, help="Only this one: resnet, vit, efficientnet-lite, ... Default: all of them.")
@json_option
def backbones(family: str | None, as_json: bool) -> None:
    """The families of networks: size, work, licence of the weights, and whether they are fit for int8 and why.

    Any name or family shown is a --backbone of `train`, and so is every other name timm knows.

    Example: inspection backbones --family mobilenet
    """
    from inspection.models.families import as_dicts, as_table, members_of

    members = members_of(family)
    show(as_dicts(members), as_json, as_table(members))


@click.command("preview-augmentation")
@click.option("--product", "product_name", default=None, help="Of this product's labelled pictures, with its switches.")
@click.option("--snapshot", default=None, help="Of a snapshot's.")
@click.option("--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Of a folder, no server.")
@click.option("--good", default=None, help="With --images: the name of the good class.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("augmentation.png"), show_default=True)
@state_option
@json_option
def preview_augmentation(
    state: Path | None, as_json: bool, images: Path | None, good: str | None, out: Path, **options: Any
) -> None:
    """One picture that shows what training would make of yours: would each still be of its class?

    Where not, switch it off: `inspection product show` has the switches under train.augment, `product set` sets them.

    Example: inspection preview-augmentation --images photos/ --good ok
    """
    from inspection.stages.look import sheet_of_images, sheet_of_product

    if images is not None:
        shown = sheet_of_images(images, good, out)
    else:
        with opened_store(settings_of(state)) as store:
            shown = sheet_of_product(store, options, out)
    show({"out": str(out), "pictures": shown}, as_json, f"{out} shows {shown} pictures; look at it")


COMMANDS = (backbones, preview_augmentation)
