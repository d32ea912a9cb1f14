"""`inspection ...`: parse, wire, call; no logic. Heavy parts are imported by the command that needs them.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 gate FAIL, 4 gate INSUFFICIENT.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspection.errors import EscapementError, UsageError
from inspection.settings import Settings, default_state, load_settings

if TYPE_CHECKING:
    from inspection.release.gate import GateAnswer
    from inspection.store.session import Store

EXIT_FAILED, EXIT_USAGE, EXIT_GATE_FAIL, EXIT_GATE_INSUFFICIENT = 1, 2, 3, 4
OUR_PACKAGES = frozenset({"inspection", "pipelines", "edge_agent"})

state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder that holds everything. Default: $ESCAPEMENT_STATE, else ./state.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script to read.")


class _Group(click.Group):
    """Errors of ours end with their sentence and exit code, never with a traceback; so does what is not installed."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EscapementError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if not missing or missing in OUR_PACKAGES:
                raise
            click.echo(
                f"error: this needs the server side, and {missing} is not installed here: run `make install` in the "
                "checkout, or `pip install '.[server,train]'` there",
                err=True,
            )
            sys.exit(EXIT_FAILED)


def _settings(state: Path | None) -> Settings:
    return load_settings(state or default_state(os.environ), os.environ)


@contextmanager
def _store(settings: Settings) -> Iterator["Store"]:
    from inspection.store.session import Store

    with Store.open(settings.database_url, settings.blob_url) as store:
        yield store


def _print(value: Any, as_json: bool, words: str) -> None:
    click.echo(json.dumps(value, indent=1, default=str) if as_json else words)


def _print_all(found: Sequence[Any], as_json: bool, none: str) -> None:
    words = "\n".join(one.in_words() for one in found) or none
    _print([one.model_dump(mode="json") for one in found], as_json, words)


def _end_by(answer: "GateAnswer") -> None:
    codes = {"PASS": 0, "FAIL": EXIT_GATE_FAIL, "INSUFFICIENT": EXIT_GATE_INSUFFICIENT}
    sys.exit(codes[answer.answer.value])


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="escapement")
def main() -> None:
    """Visual inspection that closes the loop: camera, verdict, label, retrain, signed model, same device.

    Start with `inspection demo`, or `inspection up` for your own line.
    """


@main.command()
@state_option
@click.option("--ephemeral", is_flag=True, help="Use a temporary folder and free ports; remove the folder at the end.")
@click.option("--host", default=None, help="This machine's address for other machines. Default: loopback only.")
def up(state: Path | None, ephemeral: bool, host: str | None) -> None:
    """Start Label Studio, MLflow, Prefect, the flows and the hub; watch them; stop them on Ctrl-C.

    Example: inspection up --state /srv/escapement
    """
    from inspection.up.compose import temporary_settings
    from inspection.up.run import run_up

    if ephemeral and state is not None:
        raise UsageError("--ephemeral makes a folder of its own: leave --state away")
    with temporary_settings() if ephemeral else nullcontext(_settings(state)) as settings:
        code = run_up(settings, environment=os.environ, host=host)
    sys.exit(code)


@main.command(context_settings={"ignore_unknown_options": False})
@click.option("--exit", "exit_at_end", is_flag=True, help="Stop the servers at the end instead of leaving them up.")
@click.option("--label-yourself", is_flag=True, help="You answer in Label Studio instead of the scripted operator.")
@click.option("--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Your own pictures.")
@click.option("--good", help="With --images: the name of the good class.")
@click.option("--backbone", default=None, help="Teacher's network. Default: resnet18.")
@click.option(
    "--pretrained",
    default=None,
    help='"hub", "none", or a file of weights. Default: "none", but "hub" for --images where it can be reached.',
)
@click.option("--student", default=None, help="The device's network. Default: mobilenetv4_conv_small.")
@click.option("--student-pretrained", default=None, help="The same for the device's network.")
@click.option(
    "--size",
    type=click.IntRange(32, 1024),
    default=None,
    help="Pixels a side the networks are shown. Default: 128 at most; up to 320 where boxes.csv shows small defects.",
)
@click.option("--max-escape", type=click.FloatRange(0, 1), default=None, help="Limit on the escape rate for the gates.")
@click.option("--max-overkill", type=click.FloatRange(0, 1), default=None, help="Limit on the overkill rate.")
@click.option("--report", type=click.Path(path_type=Path), default=Path("demo-report.json"), show_default=True)
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), default=Path("demo-state"), show_default=True)
def demo(**options: Any) -> None:
    """The whole loop on this machine: a virtual line, operators, retraining, a signed int8 model, a safer line.

    Example: inspection demo --images photos/ --good ok --exit
    """
    from inspection.demo.main import DemoOptions, run_demo

    sys.exit(run_demo(DemoOptions(**options), os.environ))


@main.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=None, help="Port to bind. Default: that of the hub's address."
)
@state_option
def hub(port: int | None, state: Path | None) -> None:
    """Serve the hub alone (uploads, pictures, rollouts, console). Example: inspection hub --state /srv/escapement"""
    from inspection.hub.__main__ import serve

    serve(_settings(state), port=port)


@main.command("import-images")
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

    settings = _settings(state)
    with _store(settings) as store, click.progressbar(length=1, label="importing", file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        report = import_directory(settings, store, directory, product, good, progress)
    _print(report.as_dict(), as_json, report.in_words())


@main.group()
def product() -> None:
    """Products and their stations: what is inspected where, and how its loop is tuned."""


@product.command("list")
@state_option
@json_option
def product_list(state: Path | None, as_json: bool) -> None:
    """Every product with its classes and stations. Example: inspection product list"""
    from inspection.stages.fleet import products

    with _store(_settings(state)) as store:
        _print_all(
            products(store), as_json, "no product yet: `inspection product set` or `inspection import-images` makes one"
        )


@product.command("stations")
@click.option("--product", "product_name", default=None, help="Only those of this product.")
@state_option
@json_option
def product_stations(product_name: str | None, state: Path | None, as_json: bool) -> None:
    """Every station with its mode, audit share and devices. Example: inspection product stations --product lid"""
    from inspection.stages.fleet import stations

    with _store(_settings(state)) as store:
        _print_all(stations(store, product_name), as_json, "no station yet: `inspection product add-station` adds one")


@product.command("enrolment-code")
@state_option
def product_enrolment_code(state: Path | None) -> None:
    """Print the code devices enrol with. Example: inspection product enrolment-code --state /srv/escapement"""
    from inspection.stages.fleet import enrolment_code

    settings = _settings(state)
    with _store(settings) as store:
        click.echo(enrolment_code(settings, store))


@product.command("show")
@click.argument("name")
@state_option
def product_show(name: str, state: Path | None) -> None:
    """Print a product's definition as JSON. Example: inspection product show lid"""
    from inspection.data.products import load_product

    with _store(_settings(state)) as store, store.begin(read_only=True) as session:
        click.echo(load_product(session, name).model_dump_json(indent=1))


@product.command("set")
@click.argument("file", type=click.File("rb"))
@state_option
def product_set(file: Any, state: Path | None) -> None:
    """Create or change a product from a JSON file ("-": standard input). Example: inspection product set lid.json"""
    from inspection.stages.define import define_product

    with _store(_settings(state)) as store:
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

    settings = _settings(state)
    with _store(settings) as store, store.begin() as session:
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

    with _store(_settings(state)) as store, store.begin() as session:
        challenge(session, station, None if bundle == "none" else bundle)
    click.echo(f"station {station} gets it with its next assignment, at the next watch run")


@product.command("retire-device")
@click.argument("device")
@state_option
def retire_device(device: str, state: Path | None) -> None:
    """Forget a device that was replaced; rollouts no longer wait for it. Example: inspection product retire-device cam-1"""
    from inspection.data.products import retire_device as retire

    with _store(_settings(state)) as store, store.begin() as session:
        station = retire(session, device)
    click.echo(f"device {device} of station {station} is retired: its token is void, its verdicts stay")


@main.command()
@click.option("--snapshot", default=None, help="A snapshot's id. Default: make one of all labels of --product.")
@click.option("--product", "product_name", default=None, help="Default: the product of --snapshot.")
@click.option("--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Try a folder, no server.")
@click.option("--good", default=None, help="With --images: the name of the good class.")
@click.option("--backbone", default=None, help="Any timm name: resnet18, convnext_tiny, ... Default: the product's.")
@click.option("--pretrained", default=None, help='"hub", "none", or a file of weights. Default: the product\'s.')
@click.option("--epochs", type=click.IntRange(1), default=None)
@click.option("--size", type=click.IntRange(32), default=None, help="Side of the network's input in pixels.")
@state_option
@json_option
def train(state: Path | None, as_json: bool, images: Path | None, good: str | None, **options: Any) -> None:
    """Train a teacher and ask gate 1. Example: inspection train --images photos/ --good ok --backbone resnet18"""
    from inspection.stages.try_out import train_from_images, train_snapshot

    say = _say(as_json)
    if images is not None:
        outcome = train_from_images(images, good, options, say)
    else:
        settings = _settings(state)
        with _store(settings) as store:
            outcome = train_snapshot(settings, store, options, say)
    _print(outcome.as_dict(), as_json, outcome.in_words())
    _end_by(outcome.gate)


def _say(as_json: bool) -> Callable[[str], None]:
    return lambda words: click.echo(words, err=as_json)


@main.command("build-bundle")
@click.argument("run")
@state_option
@json_option
def build_bundle(run: str, state: Path | None, as_json: bool) -> None:
    """Distil, export, quantize and pack the model of an MLflow run. Example: inspection build-bundle 3f2a..."""
    from inspection.stages.candidate import load_candidate

    settings = _settings(state)
    candidate = load_candidate(settings, run)
    from inspection.stages.shrink import build  # loads torch: a wrong name is told before that

    with _store(settings) as store:
        made = build(settings, store, candidate, _say(as_json))
    _print(made.model_dump(mode="json"), as_json, f"bundle {made.bundle}\n{made.bundle_file}")


@main.command()
@click.argument("bundle")
@state_option
@json_option
def gate(bundle: str, state: Path | None, as_json: bool) -> None:
    """Ask gate 2: the bundle itself, on the agent's own runtime, on the golden parts. Example: inspection gate 9c41..."""
    from inspection.stages.candidate import candidate_of_bundle

    settings = _settings(state)
    candidate = candidate_of_bundle(settings, bundle)
    from inspection.stages.prove import prove  # loads torch: a wrong name is told before that

    with _store(settings) as store:
        answer = prove(settings, store, candidate, who="command line").gate_2
    assert answer is not None  # noqa: S101 - prove() sets it
    _print(answer.model_dump(mode="json"), as_json, answer.why)
    _end_by(answer)


@main.command()
@click.argument("bundle")
@state_option
@json_option
def sign(bundle: str, state: Path | None, as_json: bool) -> None:
    """Sign a bundle that passed gate 2, and its recipe. Example: inspection sign 9c41..."""
    from inspection.stages import deploy
    from inspection.stages.candidate import candidate_of_bundle

    settings = _settings(state)
    with _store(settings) as store:
        digest, recipe = deploy.sign(settings, store, candidate_of_bundle(settings, bundle))
    _print({"bundle": digest, "recipe": recipe}, as_json, f"signed bundle {digest}\nsigned recipe {recipe}")


@main.group()
def rollout() -> None:
    """Move a signed bundle to the stations, group by group, and back."""


@rollout.command("start")
@click.argument("bundle")
@click.option("--group", "groups", multiple=True, help="Stations of a group, comma separated; repeat in order.")
@state_option
def rollout_start(bundle: str, groups: tuple[str, ...], state: Path | None) -> None:
    """Begin a rollout. The first group gets the bundle now, each later one when `watch` finds the one before has proved it.

    Example: inspection rollout start 9c41... --group S1 --group S2,S3
    """
    from inspection.stages import deploy
    from inspection.stages.candidate import candidate_of_bundle

    settings = _settings(state)
    chosen = [[name.strip() for name in group.split(",")] for group in groups] or None
    with _store(settings) as store:
        candidate = candidate_of_bundle(settings, bundle)
        number = deploy.start(settings, store, candidate, who="command line", why="started by hand", groups=chosen)
    click.echo(f"rollout {number} is running; `inspection rollout status --product {candidate.product}` shows it")
    click.echo(
        "Later groups move on when the flow `watch` runs (`inspection up` serves it on the product's schedule), or now by "
        f"hand: PREFECT_API_URL={settings.prefect_url}/api prefect deployment run roll-out/{candidate.product}"
    )


def _rollout_command(name: str, doc: str) -> None:
    @rollout.command(name, help=doc)
    @click.option("--product", "product_name", required=True)
    @state_option
    @json_option
    def command(product_name: str, state: Path | None, as_json: bool) -> None:
        from inspection.stages import fleet

        settings = _settings(state)
        with _store(settings) as store:
            view = fleet.COMMANDS[name](settings, store, product_name)
        _print(view.model_dump(mode="json"), as_json, view.in_words())


_rollout_command("pause", "Assign nothing further until resumed. Example: inspection rollout pause --product lid")
_rollout_command("resume", "Carry on. Example: inspection rollout resume --product lid")
_rollout_command("abort", "Emergency stop: every moved station goes back. Example: inspection rollout abort --product lid")
_rollout_command("status", "Show the newest rollout. Example: inspection rollout status --product lid --json")


@main.command("pull-labels")
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

    settings = _settings(state)
    with _store(settings) as store:
        done = pull_answers(settings, store, product_name, **options)
    _print(done.model_dump(), as_json, done.in_words())


@main.group()
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

    with _store(_settings(state)) as store:
        _print_all(standing(store, product_name, picture), as_json, "no answer about it stands")


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

    with _store(_settings(state)) as store:
        done = withdraw(store, product_name, picture, who="command line", why=why, answer=answer)
    _print([one.model_dump(mode="json") for one in done], as_json, withdrawn_in_words(done))


@main.command()
@click.argument("part")
@state_option
def passport(part: str, state: Path | None) -> None:
    """Everything that is known of a part, as JSON. Example: inspection passport S1-000123"""
    from inspection.stages.passport import passport_of

    settings = _settings(state)
    with _store(settings) as store:
        click.echo(json.dumps(passport_of(settings, store, part), indent=1, default=str))


@main.command()
@state_option
@json_option
def doctor(state: Path | None, as_json: bool) -> None:
    """Name every problem of this machine in words, with the next step. Example: inspection doctor"""
    from inspection.up.preflight import preflight

    problems = preflight(_settings(state), environment=os.environ)
    _print([str(p) for p in problems], as_json, "\n".join(map(str, problems)) or "no problem found")
    sys.exit(EXIT_FAILED if problems else 0)


if __name__ == "__main__":
    main()
