"""The limit on novelty keeps what it states, and a guarded file says the same everywhere."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from inspection.contracts import ANY_DEFECT, Band, Decision, InputDescription, OutputDescription, Recipe, decide
from inspection.data.importers import read_directory
from inspection.data.pictures import decode_bgr, encode_png
from inspection.data.snapshot_record import Split
from inspection.models import catalogue
from inspection.models.deploy import DeployGraph, GuardedGraph
from inspection.models.novelty import learn_novelty
from inspection.release.bundle import choose_self_test, distance_to_threshold, pack
from inspection.release.export import export_onnx
from inspection.release.guard import GUARD_SHARE, STATED_SHARE, stated_limit, unfamiliar_limit
from inspection.release.measure import Answers, answers_of, scores_of
from inspection.release.quantize import quantize_int8
from inspection.release.replay import GoldenPicture, replay
from tests.models.test_novelty import BACKBONE, SIDE, learnt, scratched, surface
from tests.release.making import recipe

PARTS = [f"p{i}" for i in range(400)]


def test_one_half_is_what_the_novelty_itself_states() -> None:
    """A smaller share has a higher limit."""
    assert stated_limit(STATED_SHARE) == pytest.approx(0.5)
    assert stated_limit(GUARD_SHARE) == pytest.approx(0.834, abs=0.001)


@given(st.integers(0, 2**32 - 1), st.floats(-1, 3), st.floats(0.5, 2), st.sampled_from([0.002, 0.01, 0.05]))
def test_unseen_good_parts_reach_the_limit_no_more_often_than_stated(
    seed: int, place: float, scale: float, share: float
) -> None:
    """Of parts drawn like the 400 that were held out, at most about the share; fewer where the novelty states more."""
    rng = np.random.default_rng(seed)
    held_out, unseen = (expit(stats.gumbel_r.rvs(place, scale, size=n, random_state=rng)) for n in (400, 20_000))
    limit = unfamiliar_limit(held_out, PARTS, share)
    assert limit >= stated_limit(share)
    assert float((unseen >= limit).mean()) <= 2.5 * share


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.sampled_from([0.002, 0.01]))
def test_a_handful_of_parts_moves_nothing(novelty: list[float], share: float) -> None:
    """Nothing is fitted to less than ten parts, however many pictures they have."""
    assert unfamiliar_limit(novelty * 5, [f"p{i}" for i in range(len(novelty))] * 5, share) == stated_limit(share)


def test_a_part_is_as_novel_as_its_most_novel_picture() -> None:
    """More pictures of a part are no more parts."""
    once = np.linspace(0.2, 0.9, 20)
    twice = [*once, *(once / 3)]
    parts = [f"p{i}" for i in range(20)]
    assert unfamiliar_limit(twice, parts * 2) == pytest.approx(unfamiliar_limit(once, parts))
    assert unfamiliar_limit(np.full(20, 0.95), parts) == pytest.approx(0.95)  # all alike: a rendered product


def test_the_self_test_keeps_away_from_the_limit_on_novelty() -> None:
    """A picture a sound device may round over it is not taken while others are there; the rest say what is expected."""
    rule = recipe().model_copy(update={"unfamiliar": 0.8})
    scores = {name: {"good": 1.0, "dent": 0.0} for name in ("usual", "at-limit", "strange")}
    novelty = {"usual": 0.1, "at-limit": 0.79, "strange": 1.0}
    chosen = choose_self_test(scores, rule, novelty=novelty)
    assert {name: (case.decision, case.novelty) for name, case in chosen.items()} == {
        "usual": (Decision.OK, 0.1),
        "strange": (Decision.INCONCLUSIVE, 1.0),
    }
    assert distance_to_threshold(scores["usual"], rule, 0.79) == pytest.approx(0.01)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A guarded classifier (random weights: it knows nothing) as float, and as int8 of two kinds."""
    torch.manual_seed(4)
    net = catalogue.build(BACKBONE, 2, pretrained="none", height=SIDE, width=SIDE).eval()
    folder = tmp_path_factory.mktemp("guarded")
    export_onnx(GuardedGraph(DeployGraph(net), learnt(net, 60)).eval(), folder / "float.onnx")
    quantize_int8(folder / "float.onnx", [surface(i)[None] for i in range(16)], folder / "int8.onnx")
    quantize_int8(folder / "float.onnx", [surface(i)[None] for i in range(16)], folder / "plain.onnx", plain=True)
    return {name: folder / f"{name}.onnx" for name in ("float", "int8", "plain")}


@pytest.mark.parametrize("precision", ["float", "int8", "plain"])
def test_the_agent_s_own_program_turns_away_what_the_file_finds_unfamiliar(files: dict[str, Path], precision: str) -> None:
    """The novelty this side computed, and the decision the rule gives: OK for good parts, doubt for foreign ones."""
    path = files[precision]
    held_out = [surface(i) for i in range(100, 140)]
    answers = answers_of(path, held_out)
    assert answers.novelty is not None
    rule = recipe().model_copy(
        update={
            "thresholds": {ANY_DEFECT: Band(inconclusive=1.0, ng=1.0)},  # scores say nothing
            "unfamiliar": unfamiliar_limit(answers.novelty, [str(i) for i in range(40)], STATED_SHARE),
        }
    )
    shown = [*(surface(i) for i in range(500, 530)), *(scratched(i) for i in range(30))]
    here = answers_of(path, shown)
    verdicts = [v for v, _ in replay(_packed(path, rule, shown[:2], here), [_golden(i, p) for i, p in enumerate(shown)])]
    assert [v.novelty for v in verdicts] == pytest.approx([here.novelty_at(i) for i in range(60)], abs=1e-4)
    turned = [v.decision is Decision.INCONCLUSIVE for v in verdicts]
    assert sum(turned[:30]) <= 3
    assert sum(turned[30:]) >= 27
    assert all(v.reason is not None and v.reason.startswith("unlike anything") for v in verdicts if v.decision != "OK")


@pytest.mark.real_data
@pytest.mark.slow
def test_on_real_surfaces_what_good_ones_do_not_show_is_doubted(real_data: Path, tmp_path: Path) -> None:
    """X-SDD at 96 px with weights of ImageNet: unseen defective pictures are more novel than unseen good ones (AUROC above
    0.85), and the agent finds at least a fifth of them unlike anything it has learnt, of good ones at most one in 25."""
    learn, held_out, good, bad = _real_surfaces(real_data / "xsdd")
    weights = real_data / "weights" / "mobilenetv2_100_timm_same_tf2ptq_dequant_fp16.pth"
    net = catalogue.build(
        "mobilenetv2_100?pad_type=same&mean=0.5&std=0.5", 2, pretrained=weights, height=SIDE, width=SIDE
    ).eval()
    frames = (torch.from_numpy(picture)[None] for picture in learn)
    novelty = learn_novelty(net, frames, [str(i) for i in range(len(learn))])
    path = tmp_path / "guarded.onnx"
    export_onnx(GuardedGraph(DeployGraph(net), novelty).eval(), path)
    apart = answers_of(path, held_out).novelty
    assert apart is not None
    rule = recipe().model_copy(
        update={
            "thresholds": {ANY_DEFECT: Band(inconclusive=1.0, ng=1.0)},
            "unfamiliar": unfamiliar_limit(apart, [str(i) for i in range(len(held_out))], STATED_SHARE),
        }
    )
    shown = [*good, *bad]
    data = _packed(path, rule, held_out[:4], answers_of(path, held_out[:4]))
    verdicts = [v for v, _ in replay(data, [_golden(i, p) for i, p in enumerate(shown)])]
    found = np.array([v.novelty for v in verdicts])
    doubted = np.array([v.decision is Decision.INCONCLUSIVE for v in verdicts])
    assert roc_auc_score(np.repeat([False, True], [len(good), len(bad)]), found) > 0.85
    assert doubted[: len(good)].mean() <= 0.04
    assert doubted[len(good) :].mean() >= 1 / 5


def _real_surfaces(folder: Path) -> tuple[list[np.ndarray], ...]:
    """Training pictures of red iron to learn from and to hold out, tested ones of it, and of all other classes."""
    items = read_directory(folder, "red_iron")
    known = [i for i in items if i.split is not Split.GOLDEN and i.label == "red_iron"]
    tested = [i for i in items if i.split is Split.GOLDEN]
    good, bad = ([i for i in tested if (i.label == "red_iron") is fine] for fine in (True, False))
    chosen = (known[:200], known[200:], good, bad[::3])
    files = ({item.path.read_bytes(): None for item in some} for some in chosen)  # the set has some pictures twice
    return tuple([decode_bgr(data) for data in each] for each in files)


def _golden(number: int, picture: np.ndarray) -> GoldenPicture:
    return GoldenPicture(encode_png(picture), "good", f"p{number}")


def _packed(path: Path, rule: Recipe, pictures: list[np.ndarray], answers: Answers) -> bytes:
    rows = {str(i): dict(zip(("good", "dent"), map(float, answers.scores[i]), strict=True)) for i in range(len(pictures))}
    novelty = {str(i): float(answers.novelty_at(i) or 0.0) for i in range(len(pictures))}
    cases = choose_self_test(rows, rule, novelty=novelty)
    contents = {"model.onnx": path.read_bytes(), "recipe.json": rule.canonical()}
    return pack(
        contents | {case.path: encode_png(pictures[int(key)]) for key, case in cases.items()},
        name="plate-edge",
        version=1,
        product="plate",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        backbone=BACKBONE,
        precision="float32",
        input=InputDescription(model_height=SIDE, model_width=SIDE),
        output=OutputDescription(novelty="novelty"),
        classes=["good", "dent"],
        good_class="good",
        self_test=list(cases.values()),
    )


def test_a_file_without_novelty_gives_scores_alone(files: dict[str, Path], tmp_path: Path) -> None:
    """And no pictures give no rows; the decision rule refuses a recipe that asks it for more."""
    torch.manual_seed(4)
    net = catalogue.build(BACKBONE, 2, pretrained="none", height=SIDE, width=SIDE).eval()
    export_onnx(DeployGraph(net), tmp_path / "plain.onnx")
    answers = answers_of(tmp_path / "plain.onnx", [surface(1)])
    assert (answers.novelty, answers.novelty_at(0)) == (None, None)
    assert np.allclose(answers.scores, scores_of(files["float"], [surface(1)]), atol=1e-4)
    none = answers_of(files["float"], [])
    assert none.novelty is not None
    assert (none.scores.shape, none.novelty.shape) == ((0, 2), (0,))
    with pytest.raises(ValueError, match="asks for a novelty"):
        decide({"good": 1.0, "dent": 0.0}, recipe().model_copy(update={"unfamiliar": 0.5}), answers.novelty_at(0))
