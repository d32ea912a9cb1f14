"""The commands about networks, before any picture is trained on."""

import click

from inspection.cli.common import json_option, show


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


COMMANDS = (backbones,)
