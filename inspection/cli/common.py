"""What the commands share: options, the store, what is printed, how a process ends."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


class TilesType(click.ParamType):  # type: ignore[type-arg]  # its argument is newer than the oldest click we take
    """``ROWSxCOLUMNS`` or ``ROWSxCOLUMNS+OVERLAP`` (pixels) to a `Tiling`."""

    name = "ROWSxCOLUMNS[+PIXELS]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See the class."""
        from inspection.contracts import Tiling

        found = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)(?:\+(\d{1,4}))?", str(value))
        if found is None:
            self.fail(f"{value!r}: give rows, columns and their overlap in pixels, as 3x3 or 3x3+40", param, ctx)
        rows, columns, overlap = (int(number or 0) for number in found.groups())
        return Tiling(rows=rows, columns=columns, overlap=overlap)


tiles_option = click.option(
    "--tiles",
    "tiling",
    type=TilesType(),
    default=None,
    help="With --images: cut pictures into tiles, as 3x3 or 3x3+40 (40 px overlap); for small defects on large pictures.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script to read.")


class Group(click.Group):
    """Errors of ours end with their sentence and exit code, never with a traceback; so does what is not installed."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; end the process where it cannot be done."""
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


def share_the_processor() -> None:
    """Before torch is loaded: its threads wait a moment, then sleep. By default they spin for milliseconds at every step,
    and on a computer that does anything else a training takes ten times as long (training/README.md)."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def folder_with_good(images: Path | None, good: str | None) -> tuple[Path, str] | None:
    """``--images`` with the name of its good class; None without a folder. UsageError where the name is missing."""
    if images is not None and good is None:
        raise UsageError("--images needs --good: the name of the good class")
    return None if images is None or good is None else (images, good)


def settings_of(state: Path | None) -> Settings:
    """Of the folder given, else of the one the environment names."""
    return load_settings(state or default_state(os.environ), os.environ)


@contextmanager
def opened_store(settings: Settings) -> Iterator["Store"]:
    """The store, closed at the end."""
    from inspection.store.session import Store

    with Store.open(settings.database_url, settings.blob_url) as store:
        yield store


def show(value: Any, as_json: bool, words: str) -> None:
    """The value for a script, or the words for a person."""
    click.echo(json.dumps(value, indent=1, default=str) if as_json else words)


def show_all(found: Sequence[Any], as_json: bool, none: str) -> None:
    """Each one, or the word for none."""
    words = "\n".join(one.in_words() for one in found) or none
    show([one.model_dump(mode="json") for one in found], as_json, words)


def narrator(as_json: bool) -> Callable[[str], None]:
    """Tells a person what is going on: on standard error where a script reads standard output."""
    return lambda words: click.echo(words, err=as_json)


def end_by(answer: "GateAnswer") -> None:
    """End the process by a gate's answer."""
    codes = {"PASS": 0, "FAIL": EXIT_GATE_FAIL, "INSUFFICIENT": EXIT_GATE_INSUFFICIENT}
    sys.exit(codes[answer.answer.value])
