"""The commands about what people answered, and what became of a part."""

import json
from pathlib import Path

import click

from inspection.cli.common import json_option, opened_store, settings_of, show, show_all, state_option


@click.command("pull-labels")
@click.option("--product", "product_name", required=True)
@click.option("--allow-mass-retraction", is_flag=True, help="Most answers were deleted in Label Studio on purpose.")
@click.option(
    "--restore-interface", is_flag=True, help="Put the product's own interface in place of one that was changed by hand."
)
@state_option
@json_option
def pull_labels(product_name: str, state: Path | None, as_json: bool, **options: bool) -> None:
    """Take over what operators answered since the last pull. Example: inspection pull-labels --product lid"""
    from inspection.stages.ask import pull_answers

    settings = settings_of(state)
    with opened_store(settings) as store:
        done = pull_answers(settings, store, product_name, **options)
    show(done.model_dump(), as_json, done.in_words())


@click.group()
def labels() -> None:
    """Answers about single pictures: which stand, and withdrawing them."""


@labels.command("show")
@click.argument("picture")
@click.option("--product", "product_name", required=True)
@state_option
@json_option
def labels_show(picture: str, product_name: str, state: Path | None, as_json: bool) -> None:
    """The answers about a picture (its sha256, or a beginning) that stand.

    Example: inspection labels show 9c41 --product lid
    """
    from inspection.stages.withdraw import standing

    with opened_store(settings_of(state)) as store:
        show_all(standing(store, product_name, picture), as_json, "no answer about it stands")


@labels.command("retract")
@click.argument("picture")
@click.option("--product", "product_name", required=True)
@click.option("--why", required=True, help="Kept with the retraction, for whoever reads the history.")
@click.option("--answer", default=None, help="Only this answer: its id, as `labels show` prints it. Default: all of them.")
@state_option
@json_option
def labels_retract(
    picture: str, product_name: str, why: str, answer: str | None, state: Path | None, as_json: bool
) -> None:
    """Withdraw the answers about a picture. Nothing is deleted: a retraction is appended.

    An answer that its source gives again (an import repeated, an annotation left in Label Studio) counts again.

    Example: inspection labels retract 9c41 --product lid --why "picture lost"
    """
    from inspection.stages.withdraw import withdraw, withdrawn_in_words

    with opened_store(settings_of(state)) as store:
        done = withdraw(store, product_name, picture, who="command line", why=why, answer=answer)
    show([one.model_dump(mode="json") for one in done], as_json, withdrawn_in_words(done))


@click.command()
@click.argument("part")
@state_option
def passport(part: str, state: Path | None) -> None:
    """Everything that is known of a part, as JSON. Example: inspection passport S1-000123"""
    from inspection.stages.passport import passport_of

    settings = settings_of(state)
    with opened_store(settings) as store:
        click.echo(json.dumps(passport_of(settings, store, part), indent=1, default=str))


COMMANDS = (pull_labels, labels, passport)
