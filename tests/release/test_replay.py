"""Replay runs the agent on a bundle, and fails as a whole when anything is missing."""

import sys
import tracemalloc

import cv2
import pytest

from inspection.contracts import ONNXRUNTIME, OPENVINO, Decision, sha256_hex
from inspection.data.pictures import decode_bgr
from inspection.data.snapshot_record import Example, Split
from inspection.errors import BundleError, IntegrityError, MissingPictureError
from inspection.release import replay as replaying
from inspection.release.replay import GoldenPicture, golden_pictures, replay, timeout_for
from inspection.release.scorecard import Rate, score
from tests.release.making import recipe
from tests.release.small_model import brightness_bundle, png

PICTURES = [
    GoldenPicture(png(0.1), "good", "p1"),
    GoldenPicture(png(0.2), "good", "p2"),
    GoldenPicture(png(0.9), "dent", "p2", "press-1"),
    GoldenPicture(png(0.5), "dent", "p3"),
]


@pytest.mark.parametrize("runtime", [ONNXRUNTIME, OPENVINO])
def test_the_agent_judges_each_picture_with_this_bundle(runtime: str) -> None:
    """On the runtime it names. Verdicts come back with truth, part and station; two pictures of one part stay one part."""
    judged = replay(brightness_bundle(runtime=runtime), PICTURES)
    assert [(v.part, v.decision, label) for v, label in judged] == [
        ("p1", Decision.OK, "good"),
        ("p2", Decision.OK, "good"),
        ("p2", Decision.NG, "dent"),
        ("p3", Decision.INCONCLUSIVE, "dent"),
    ]
    card = score(judged, good_class="good")
    assert (card.escape.count, card.escape.parts, card.overkill.parts) == (0, 2, 1)
    assert {name: row.escape for name, row in card.per_station.items()} == {"press-1": Rate.of(0, 1)}


def test_a_tiff_is_judged_like_its_pixels() -> None:
    """The agent reads none: it gets the same pixels as PNG."""
    pixels = decode_bgr(png(0.9))
    tiff = bytes(cv2.imencode(".tiff", pixels)[1])
    ((verdict, _),) = replay(brightness_bundle(), [GoldenPicture(tiff, "dent", "p1")])
    assert verdict.decision is Decision.NG


def _golden(data: bytes, part: str) -> Example:
    return Example(picture=sha256_hex(data), label="good", part=part, group=part, split=Split.GOLDEN)


def test_pictures_are_in_memory_one_at_a_time() -> None:
    """Each is read when it is written down for the agent: a golden side of large frames does not fit."""
    length = 1_000_000
    examples = [_golden(bytes([number]), str(number)) for number in range(20)]
    pictures = golden_pictures(examples, lambda digest: b"BM" + digest.encode() * (length // 64))
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match="0 verdicts for 20 pictures"):
            replay(b"", pictures, command=[sys.executable, "-c", "print()"])
        assert length < tracemalloc.get_traced_memory()[1] < 5 * length
    finally:
        tracemalloc.stop()


def test_a_picture_that_is_gone_stops_the_replay() -> None:
    """With the reader's own words, though it is read late."""

    def gone(digest: str) -> bytes:
        raise MissingPictureError(f"{digest} is gone")

    with pytest.raises(MissingPictureError, match="is gone"):
        replay(b"", golden_pictures([_golden(b"x", "p1")], gone))


def test_more_pictures_are_given_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large golden side fails for what the bundle says, and not for its size."""
    assert timeout_for(4) == timeout_for(100) < timeout_for(1000) < timeout_for(2000)
    monkeypatch.setattr(replaying, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(replaying, "SECONDS_PER_PICTURE", 0.5)
    with pytest.raises(BundleError, match=r"replay of 4 pictures was not done after 2 s, .* `edge-agent bench`"):
        replay(b"", PICTURES, command=[sys.executable, "-c", "import time; time.sleep(60)"])


def test_another_recipe_moves_the_decisions() -> None:
    """A recipe is released apart from the weights."""
    judged = replay(brightness_bundle(), PICTURES, recipe=recipe(ng=0.99, inconclusive=0.95))
    assert {v.decision for v, _ in judged} == {Decision.OK}


def test_a_runtime_that_nobody_knows_is_loud() -> None:
    """A gate judges a bundle on its own runtime, or not at all."""
    with pytest.raises(BundleError, match="'tensorrt', which this agent does not know"):
        replay(brightness_bundle(runtime="tensorrt"), PICTURES)


def test_a_damaged_bundle_is_loud() -> None:
    """The agent refuses it, and its words reach the caller."""
    with pytest.raises(BundleError, match=r"exit code 1: .*tar"):
        replay(b"not a bundle", PICTURES)


def test_one_picture_twice_is_refused() -> None:
    """A picture that counts twice would bend the intervals."""
    with pytest.raises(IntegrityError, match="twice"):
        replay(b"", [PICTURES[0], PICTURES[0]])


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("print()", "0 verdicts for 4 pictures"),
        ("print('{}')", "no verdict"),
        ("print('hello')", "no verdict"),
        ("import time; time.sleep(60)", "not done after 2 s"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
    ],
)
def test_an_agent_that_does_not_answer_fully_fails_the_replay(program: str, message: str) -> None:
    """Silence, rubbish, hanging, dying: each is an error and none is a shorter list."""
    with pytest.raises(BundleError, match=message):
        replay(brightness_bundle(), PICTURES, command=[sys.executable, "-c", program], timeout_seconds=2)


def test_answers_by_another_bundle_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An agent that runs something else cannot vouch for this bundle."""
    other = tmp_path_factory.mktemp("other") / "bundle.tar"
    other.write_bytes(brightness_bundle(recipe(ng=0.7)))
    program = (
        "import subprocess, sys; "
        f"sys.exit(subprocess.call([sys.executable, '-m', 'edge_agent', 'replay', {str(other)!r}, *sys.argv[2:]]))"
    )
    with pytest.raises(BundleError, match="another bundle"):
        replay(brightness_bundle(), PICTURES, command=[sys.executable, "-c", program])
