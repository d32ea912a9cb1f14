"""The commands from a snapshot to the stations: train, build, gate, sign, roll out."""

import getpass
import sys
from pathlib import Path
from typing import Any

import click

from inspection.cli.common import (
    EXIT_FAILED,
    end_by,
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


@click.command()
@click.option("--product", required=True)
@state_option
@json_option
def snapshot(product: str, state: Path | None, as_json: bool) -> None:
    """Freeze all labels of a product: what `train --snapshot` and `compare-backbones` take, and what was left out and why.

    Example: inspection snapshot --product lid
    """
    from inspection.data.snapshots import build_snapshot

    with opened_store(settings_of(state)) as store:
        made = build_snapshot(store, product)
    show({"snapshot": made.digest, **made.counts()}, as_json, made.in_words())


@click.command()
@click.option("--snapshot", default=None, help="A snapshot's id. Default: make one of all labels of --product.")
@click.option("--product", "product_name", default=None, help="Default: the product of --snapshot.")
@click.option("--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Try a folder, no server.")
@click.option("--good", default=None, help="With --images: the name of the good class.")
@click.option(
    "--backbone", default=None, help="A name or family of `inspection backbones`, or any timm name. Default: the product's."
)
@click.option("--pretrained", default=None, help='"hub", "none", or a file of weights. Default: the product\'s.')
@click.option("--epochs", type=click.IntRange(1), default=None)
@click.option("--size", type=click.IntRange(32), default=None, help="Side of the network's input in pixels.")
@tiles_option
@state_option
@json_option
def train(state: Path | None, as_json: bool, images: Path | None, good: str | None, **options: Any) -> None:
    """Train a teacher and ask gate 1. Example: inspection train --images photos/ --good ok --backbone resnet18"""
    folder = folder_with_good(images, good)
    share_the_processor()
    from inspection.stages.try_out import Outcome, train_from_images, train_snapshot

    say = narrator(as_json)
    outcome: Outcome | None
    if folder is not None:
        outcome = train_from_images(*folder, options, say)
    else:
        settings = settings_of(state)
        with opened_store(settings) as store:
            outcome = train_snapshot(settings, store, options, say)
    if outcome is None:
        return  # this machine has helped another
    show(outcome.as_dict(), as_json, outcome.in_words())
    end_by(outcome.gate)


@click.command("build-bundle")
@click.argument("run")
@state_option
@json_option
def build_bundle(run: str, state: Path | None, as_json: bool) -> None:
    """Distil the model of an MLflow run, search for the fastest good file, and pack it.

    Prints every build that was measured, and why that one is shipped. Example: inspection build-bundle 3f2a...
    """
    from inspection.stages.candidate import load_candidate

    settings = settings_of(state)
    candidate = load_candidate(settings, run)
    share_the_processor()
    from inspection.stages.shrink import build, search_in_words  # loads torch: a wrong name is told before that

    with opened_store(settings) as store:
        made = build(settings, store, candidate, narrator(as_json))
    show(made.model_dump(mode="json"), as_json, f"{search_in_words(made)}\nbundle {made.bundle}\n{made.bundle_file}")


@click.command("cold-start")
@click.option("--product", "product_name", required=True)
@click.option(
    "--may-judge",
    "why",
    default=None,
    metavar="WHY",
    help="Make nothing: put it on record that the cold start on the lines may judge, and why.",
)
@click.option("--who", default=None, help="With --may-judge: who says so. Default: the user of this computer.")
@state_option
@json_option
def cold_start(product_name: str, why: str | None, who: str | None, state: Path | None, as_json: bool) -> None:
    """Before any defect is labelled: make a bundle from good pictures alone and ask gate 2. It doubts, and never rejects.

    Gate 2 says INSUFFICIENT of escapes (exit code 4): no defective part is known. Signed and rolled out all the same, it
    shadows at every station, those that collect included, until a person says that it may judge.

    Example: inspection cold-start --product lid
    """
    settings = settings_of(state)
    if why is not None:
        from inspection.stages.deploy import allow_judging

        with opened_store(settings) as store:
            bundle = allow_judging(store, product_name, who=who or getpass.getuser(), why=why)
        show({"bundle": bundle}, as_json, f"on record: cold start {bundle[:12]} may judge, at the next watch run")
        return
    share_the_processor()
    from inspection.stages.cold_start import make
    from inspection.stages.prove import prove

    with opened_store(settings) as store:
        made = prove(settings, store, make(settings, store, product_name, narrator(as_json)), who="command line")
    answer = made.gate_2
    assert answer is not None  # noqa: S101 - prove() sets it
    words = f"bundle {made.bundle}\n{made.bundle_file}\n{answer.why}\nnext: inspection rollout start {made.bundle}"
    show(made.model_dump(mode="json"), as_json, words)
    end_by(answer)


@click.command("rebuild")
@click.argument("run")
@state_option
@json_option
def rebuild_run(run: str, state: Path | None, as_json: bool) -> None:
    """Make the figures of an MLflow run anew, from its id alone, and compare. Example: inspection rebuild 3f2a...

    The run of a teacher, whose student and bundle are made anew, too; of a cold start; or of a comparison of networks.
    Exit code 1 when any differs: another processor, other versions, or a GPU.
    """
    from inspection.stages.candidate import comparison_of, load_candidate

    settings = settings_of(state)
    kept = comparison_of(settings, run) or load_candidate(settings, run)
    share_the_processor()
    from inspection.stages.rebuild import in_words, rebuild, rebuild_comparison

    with opened_store(settings) as store:
        if isinstance(kept, Path):
            figures = rebuild_comparison(settings, store, kept, narrator(as_json))
        else:
            figures = rebuild(settings, store, kept, narrator(as_json))
    told = {f.name: {"then": f.then, "now": f.now, "same": f.same} for f in figures}
    show(told, as_json, in_words(figures))
    if not all(f.same for f in figures):
        sys.exit(EXIT_FAILED)


@click.command()
@click.argument("bundle")
@state_option
@json_option
def gate(bundle: str, state: Path | None, as_json: bool) -> None:
    """Ask gate 2: the bundle itself, on the agent's own runtime, on the golden parts. Example: inspection gate 9c41..."""
    from inspection.stages.candidate import candidate_of_bundle

    settings = settings_of(state)
    candidate = candidate_of_bundle(settings, bundle)
    from inspection.stages.prove import prove  # loads torch: a wrong name is told before that

    with opened_store(settings) as store:
        answer = prove(settings, store, candidate, who="command line").gate_2
    assert answer is not None  # noqa: S101 - prove() sets it
    show(answer.model_dump(mode="json"), as_json, answer.why)
    end_by(answer)


@click.command()
@click.argument("bundle")
@state_option
@json_option
def sign(bundle: str, state: Path | None, as_json: bool) -> None:
    """Sign a bundle that passed gate 2, and its recipe. Example: inspection sign 9c41..."""
    from inspection.stages import deploy
    from inspection.stages.candidate import candidate_of_bundle

    settings = settings_of(state)
    with opened_store(settings) as store:
        digest, recipe = deploy.sign(settings, store, candidate_of_bundle(settings, bundle))
    show({"bundle": digest, "recipe": recipe}, as_json, f"signed bundle {digest}\nsigned recipe {recipe}")


@click.group()
def rollout() -> None:
    """Move a signed bundle to the stations, group by group, and back."""


@rollout.command("start")
@click.argument("bundle")
@click.option("--group", "groups", multiple=True, help="Stations of a group, comma separated; repeat in order.")
@state_option
@json_option
def rollout_start(bundle: str, groups: tuple[str, ...], state: Path | None, as_json: bool) -> None:
    """Begin a rollout. The first group gets the bundle now, each later one when `watch` finds the one before has proved it.

    Example: inspection rollout start 9c41... --group S1 --group S2,S3
    """
    from inspection.stages import deploy
    from inspection.stages.candidate import candidate_of_bundle

    settings = settings_of(state)
    chosen = [[name.strip() for name in group.split(",")] for group in groups] or None
    with opened_store(settings) as store:
        candidate = candidate_of_bundle(settings, bundle)
        number = deploy.start(settings, store, candidate, who="command line", why="started by hand", groups=chosen)
        view = deploy.rollout_state(store, candidate.product)
    words = (
        f"rollout {number} is running; `inspection rollout status --product {candidate.product}` shows it\n"
        "Later groups move on when the flow `watch` runs (`inspection up` serves it on the product's schedule), or now by "
        f"hand: PREFECT_API_URL={settings.prefect_url}/api prefect deployment run roll-out/{candidate.product}"
    )
    show({"rollout": number, **view.model_dump(mode="json")}, as_json, words)


def _rollout_command(name: str, doc: str) -> None:
    @rollout.command(name, help=doc)
    @click.option("--product", "product_name", required=True)
    @state_option
    @json_option
    def command(product_name: str, state: Path | None, as_json: bool) -> None:
        from inspection.stages import fleet

        settings = settings_of(state)
        with opened_store(settings) as store:
            view = fleet.COMMANDS[name](settings, store, product_name)
        show(view.model_dump(mode="json"), as_json, view.in_words())


_rollout_command("pause", "Assign nothing further until resumed. Example: inspection rollout pause --product lid")
_rollout_command("resume", "Carry on. Example: inspection rollout resume --product lid")
_rollout_command("abort", "Emergency stop: every moved station goes back. Example: inspection rollout abort --product lid")
_rollout_command("status", "Show the newest rollout. Example: inspection rollout status --product lid --json")


COMMANDS = (snapshot, train, cold_start, rebuild_run, build_bundle, gate, sign, rollout)
