"""Replay: a bundle judges labelled pictures on the agent's own runtime, as a subprocess.

Invariants: the agent is run, never imported; every picture gets exactly one verdict by exactly this bundle, or replay
fails as a whole: a gate must not pass on the pictures that happened to work. One picture at a time is held in memory.
"""

import csv
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from inspection.contracts import Recipe, Verdict, sha256_hex
from inspection.data.pictures import decode_bgr, encode_png
from inspection.data.snapshot_record import Example
from inspection.errors import BundleError, IntegrityError
from inspection.release.evaluate import EVALUATION

_TAIL = 2000  # characters of the agent's complaint that are worth repeating
_STEM_DIGITS = 32  # of a picture's digest: its name in the replayed folder
LEAST_SECONDS = 900.0
SECONDS_PER_PICTURE = 5.0
"""How long the agent may take for one: many times what a line waits for, and enough for the tiles of a large frame on a
busy processor. What takes longer hangs."""


@dataclass(frozen=True)
class GoldenPicture:
    """One picture to judge: its file bytes, true class and physical part, and the station that took it, where known.

    ``data`` may be what reads them, instead of them: thousands of pictures of a large camera do not fit into memory.
    """

    data: bytes | Callable[[], bytes]
    label: str
    part: str
    station: str | None = None

    def read(self) -> bytes:
        """The file bytes; raises what reading them raises."""
        return self.data if isinstance(self.data, bytes) else self.data()


def golden_pictures(examples: Iterable[Example], pictures: Callable[[str], bytes]) -> list[GoldenPicture]:
    """The examples; ``pictures`` maps a SHA-256 to file bytes, when one is replayed, and raises when it is missing."""
    return [GoldenPicture(partial(pictures, e.picture), e.label, e.part, e.station) for e in examples]


_AS_THEY_ARE = {b"\x89P": ".png", b"\xff\xd8": ".jpg", b"BM": ".bmp"}


def _file_of(data: bytes) -> tuple[str, bytes]:
    """Suffix and bytes of a file the agent reads: others, like TIFF, become PNG, which loses nothing."""
    suffix = _AS_THEY_ARE.get(data[:2])
    return (suffix, data) if suffix else (".png", encode_png(decode_bgr(data)))


def _write(folder: Path, pictures: Sequence[GoldenPicture]) -> dict[str, GoldenPicture]:
    """Files named by digest (so that a part with several pictures stays apart) and their ``labels.csv``."""
    by_stem: dict[str, GoldenPicture] = {}
    rows = []
    for picture in pictures:
        data = picture.read()
        stem = sha256_hex(data)[:_STEM_DIGITS]
        if stem in by_stem:
            raise IntegrityError(f"picture {stem} is twice among the pictures to replay: look at the snapshot")
        by_stem[stem] = picture
        suffix, content = _file_of(data)
        path = folder / (stem + suffix)
        path.write_bytes(content)
        rows.append((path.name, picture.label, stem))
    with (folder / "labels.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("path", "label", "part"), *rows])
    return by_stem


def _run(command: Sequence[str], count: int, timeout_seconds: float) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError(
            f"replay of {count} pictures was not done after {timeout_seconds:.0f} s, far longer than a line would wait: "
            "look at what else this computer is doing, and at the bundle's speed with `edge-agent bench`"
        ) from error
    if done.returncode != 0:
        raise BundleError(f"replay of the bundle ended with exit code {done.returncode}: {done.stderr.strip()[-_TAIL:]}")
    return done.stdout


def timeout_for(count: int) -> float:
    """Seconds that the replay of ``count`` pictures may take."""
    return max(LEAST_SECONDS, SECONDS_PER_PICTURE * count)


def _parse(output: str) -> list[Verdict]:
    try:
        return [Verdict.parse(line) for line in output.splitlines() if line.strip()]
    except ValidationError as error:
        raise BundleError(f"replay printed a line that is no verdict: {error}") from error


def _pair(verdicts: Sequence[Verdict], by_stem: dict[str, GoldenPicture]) -> list[tuple[Verdict, str]]:
    named = [Path(v.part).stem for v in verdicts]  # the agent names a part by its file
    if sorted(named) != sorted(by_stem):
        missing, extra = sorted(by_stem.keys() - set(named)), sorted(set(named) - by_stem.keys())
        raise BundleError(
            f"replay gave {len(named)} verdicts for {len(by_stem)} pictures "
            f"(without a verdict: {missing[:3]}, not asked for: {extra[:3]}): the bundle cannot be judged by them"
        )
    asked = [by_stem[name] for name in named]
    return [
        (v.model_copy(update={"part": p.part, "station": p.station or EVALUATION}), p.label)
        for v, p in zip(verdicts, asked, strict=True)
    ]


def replay(
    bundle: bytes,
    pictures: Sequence[GoldenPicture],
    *,
    recipe: Recipe | None = None,
    timeout_seconds: float | None = None,
    command: Sequence[str] = (sys.executable, "-m", "edge_agent", "replay"),
) -> list[tuple[Verdict, str]]:
    """Verdicts of ``bundle`` on ``pictures``, each with the true label, the physical part's name and the station that took
    the picture ("evaluation": not known), ready to be scored.

    ``recipe``: judge with this one instead of the bundle's own. ``timeout_seconds``: None is `timeout_for` the pictures.
    Raises BundleError when the agent fails, takes longer, prints anything but verdicts, leaves a picture out, or answers
    with another bundle; IntegrityError when one picture is handed in twice; what reading a picture raises.
    """
    with tempfile.TemporaryDirectory(prefix="escapement-replay-") as name:
        folder = Path(name, "pictures")
        folder.mkdir()
        packed = Path(name, "bundle.tar")
        packed.write_bytes(bundle)
        by_stem = _write(folder, pictures)
        options = ["--json"]
        if recipe is not None:
            other = Path(name, "recipe.json")
            other.write_bytes(recipe.canonical())
            options += ["--recipe", str(other)]
        allowed = timeout_for(len(pictures)) if timeout_seconds is None else timeout_seconds
        verdicts = _parse(_run([*command, str(packed), str(folder), *options], len(pictures), allowed))
    digest = sha256_hex(bundle)
    if strange := {v.bundle_digest for v in verdicts} - {digest, None}:
        raise BundleError(f"replay answered with another bundle ({strange}), asked for {digest}")
    return _pair(verdicts, by_stem)
