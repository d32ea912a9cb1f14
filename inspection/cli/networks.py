"""The commands to look with before anything is trained: networks, and what they would be shown."""

import os
from pathlib import Path
from typing import Any

import click

from inspection.cli.common import (
    folder_with_good,
    json_option,
    narrator,
    opened_store,
    settings_of,
    share_the_processor,
    show,
    state_option,
    tiles_option,
)
from inspection.settings import load_training


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
    folder = folder_with_good(images, good)
    from inspection.stages.look import sheet_of_images, sheet_of_product

    if folder is not None:
        shown = sheet_of_images(*folder, out)
    else:
        with opened_store(settings_of(state)) as store:
            shown = sheet_of_product(store, options, out)
    show({"out": str(out), "pictures": shown}, as_json, f"{out} shows {shown} pictures; look at it")


def _budgets(_: click.Context, __: click.Parameter, value: str) -> list[int | None]:
    try:
        return [None if word.strip() == "all" else int(word) for word in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: give numbers and `all`, as 25,100,all") from error


@click.command("compare-backbones")
@click.option("--product", "product_name", default=None, help="All labels of this product.")
@click.option("--snapshot", default=None, help="A snapshot's id.")
@click.option("--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="A folder, no server.")
@click.option("--good", default=None, help="With --images: the name of the good class.")
@click.option(
    "--backbone", "names", multiple=True, help="A name or family; may be given again. Default: one of each family."
)
@click.option(
    "--budgets", default="50,200,all", show_default=True, callback=_budgets, help="Training pictures of each class."
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=12, show_default=True)
@click.option(
    "--size", type=click.IntRange(32), default=224, show_default=True, help="Side of the networks' input, pixels."
)
@click.option("--pretrained", default="hub", show_default=True, help='"hub" or "none", for those without a file.')
@click.option("--weights", multiple=True, metavar="NAME=FILE", help="A network's weights from a file; may be given again.")
@tiles_option
@click.option("--no-device", is_flag=True, help="Do not build and time what a device would run.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("comparison"), show_default=True,
              help="With --images: where the work lies.")  # fmt: skip
@state_option
@json_option
def compare_backbones(
    state: Path | None, as_json: bool, images: Path | None, good: str | None, out: Path, **options: Any
) -> None:
    """Train families side by side on the same pictures; a report says which is best, by how much, and what it costs.

    It may take hours. Killed and begun again on the same pictures, or the same --snapshot (it says which one it froze), it
    goes on where it was.

    Example: inspection compare-backbones --images photos/ --good ok --backbone resnet --backbone vit --budgets 50,all
    """
    folder = folder_with_good(images, good)
    share_the_processor()
    from inspection.stages.candidate import folder_of_comparisons
    from inspection.stages.compare import Asked, Comparison, compare, compare_in_mlflow
    from inspection.stages.try_out import material_of, material_of_images

    pairs = [word.rpartition("=")[::2] for word in options["weights"]]
    asked = Asked(
        backbones=list(options["names"]),
        budgets=options["budgets"],
        seeds=options["seeds"],
        epochs=options["epochs"],
        size=options["size"],
        otherwise=options["pretrained"],
        pretrained=dict(pairs),
        device=not options["no_device"],
    )
    say = narrator(as_json)
    if folder is not None:
        with material_of_images(*folder, out / "state", say, options["tiling"]) as material:
            found = compare(Comparison.of(material, asked, out, load_training(os.environ)), say)
    else:
        settings = settings_of(state)
        with opened_store(settings) as store:
            material = material_of(store, options)
            comparison = Comparison.of(material, asked, folder_of_comparisons(settings), settings.training)
            found = compare_in_mlflow(settings, comparison, say)
    told = {"report": str(found.report), "conclusion": found.conclusion, "run": found.run}
    show(told, as_json, "\n".join([*found.conclusion, f"report: {found.report}"]))


COMMANDS = (backbones, preview_augmentation, compare_backbones)
