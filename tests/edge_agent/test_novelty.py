"""What a model says of how unfamiliar a picture is: asked for, checked, and never left out where the recipe asks for it."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_agent.bundle import Bundle, check_recipe, open_bundle
from edge_agent.errors import BundleError, MisfitError, ModelError
from edge_agent.inspecting import Loaded, infer_and_judge
from edge_agent.judge import judge
from edge_agent.page.words import why_of
from edge_agent.replaying import replay
from edge_agent.runtime import Inference, OnnxRuntime, checked
from edge_agent.selftest import self_test
from inspection.contracts import Decision, Recipe, Tiling, Verdict, tiles_of
from tests.edge_agent.helpers import CLASSES, Image, bundle, model, picture, png, recipe

UNIT = st.floats(0, 1, width=32)


def guarded_model(*, range_: float = 145.0, flat: bool = False) -> bytes:
    """The tiny model with a third output: how far the brightest blue sample is above 110, over ``range_``."""
    made = onnx.load_from_string(model())
    made.graph.node.extend(
        [
            helper.make_node("Gather", ["peak", "blue"], ["blue_peak"], axis=1),
            helper.make_node("Sub", ["blue_peak", "grey"], ["blue_over"]),
            helper.make_node("Div", ["blue_over", "blue_range"], ["blue_share"]),
            helper.make_node("Identity" if flat else "Flatten", ["blue_share"], ["rows"], **({} if flat else {"axis": 1})),
            helper.make_node("ReduceMax", ["rows", "columns"], ["novelty"], keepdims=int(flat)),
        ]
    )
    constants = {
        "blue": np.array([0], np.int64),
        "columns": np.array([1], np.int64),
        "grey": np.array(110, np.float32),
        "blue_range": np.array(range_, np.float32),
    }
    made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    made.graph.output.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["N", 1] if flat else ["N"]))
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def strange(seed: int = 0, blue: int = 255, **spots: int) -> Image:
    """A good part with a blue spot that no defect class knows."""
    image = picture(seed, **spots)
    image[30:38, 4:12, 0] = blue
    return image


def guarded(made: bytes | None = None, unfamiliar: float | None = 0.5) -> Bundle:
    """The tiny bundle whose manifest names the novelty, and whose recipe has a limit on it."""
    opened = open_bundle(bundle(model_bytes=made or guarded_model()))
    output = opened.manifest.output.model_copy(update={"novelty": "novelty"})
    manifest = opened.manifest.model_copy(update={"output": output})
    return replace(opened, manifest=manifest, recipe=opened.recipe.model_copy(update={"unfamiliar": unfamiliar}))


def loaded(opened: Bundle, rule: Recipe | None = None) -> Loaded:
    """With a session of its own."""
    return Loaded(opened, rule or opened.recipe, OnnxRuntime(opened.model, opened.manifest))


@pytest.mark.parametrize("grid", [Tiling(), Tiling(rows=2, columns=2)])
def test_a_picture_unlike_what_was_learnt_is_not_ok(grid: Tiling) -> None:
    """Whole or in tiles: INCONCLUSIVE with the number and the limit in words; a known defect beside it stays NG."""
    opened = guarded()
    ready = loaded(opened, opened.recipe.model_copy(update={"tiling": grid}))
    plain, _ = infer_and_judge(picture(3), ready)
    found, _ = infer_and_judge(strange(3), ready)
    rejected, _ = infer_and_judge(strange(3, scratch=255), ready)
    assert (plain.outcome.decision, plain.outcome.reason) == (Decision.OK, None)
    assert (found.outcome.decision, found.outcome.defect_class, found.novelty) == (Decision.INCONCLUSIVE, None, 1.0)
    assert found.outcome.reason == "unlike anything the model has learnt: novelty 1.00, limit 0.50"
    assert (rejected.outcome.decision, rejected.outcome.defect_class, rejected.novelty) == (Decision.NG, "scratch", 1.0)


@given(st.lists(st.tuples(UNIT, UNIT), min_size=4, max_size=4), UNIT)
def test_a_frame_has_the_novelty_of_its_most_novel_tile(tiles: list[tuple[float, float]], limit: float) -> None:
    """It is OK exactly when every tile's score and novelty are below the limits."""
    scores = np.array([[1 - bad, bad, 0] for bad, _ in tiles], np.float32)
    novelty = np.array([n for _, n in tiles], np.float32)
    rule = recipe().model_copy(update={"tiling": Tiling(rows=2, columns=2), "unfamiliar": limit})
    found = judge(Inference(scores, np.zeros((4, 8, 8), np.float32), novelty), tiles_of(48, 64, rule), CLASSES, rule)
    assert found.novelty == float(novelty.max())
    good = CLASSES.index("good")
    assert found.scores["good"] == pytest.approx(float(scores[:, good].min()))  # as calibration takes a picture's scores
    by_scores = judge(
        Inference(scores, np.zeros((4, 8, 8), np.float32)),
        tiles_of(48, 64, rule),
        CLASSES,
        rule.model_copy(update={"unfamiliar": None}),
    )
    usual = by_scores.outcome.decision is Decision.OK and float(novelty.max()) < limit
    assert (found.outcome.decision is Decision.OK) is usual
    assert (found.outcome.decision is Decision.NG) is (by_scores.outcome.decision is Decision.NG)


def test_a_recipe_that_asks_is_never_given_to_a_model_that_does_not_say() -> None:
    """Refused when it is opened, and a misfit where it comes to that."""
    opened = open_bundle(bundle())
    asks = opened.recipe.model_copy(update={"unfamiliar": 0.5})
    with pytest.raises(BundleError, match="the model does not say"):
        check_recipe(asks, opened.manifest)
    with pytest.raises(MisfitError, match="asks for a novelty"):
        infer_and_judge(picture(), loaded(opened, asks))
    check_recipe(asks, guarded().manifest)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: guarded_model(range_=50.0), "not in"),
        (lambda: guarded_model(range_=0.0), "infinity"),
        (lambda: guarded_model(flat=True), "novelty of shape"),
        (model, "inference failed"),
    ],
)
def test_a_novelty_that_breaks_the_contract_is_no_novelty(made: Callable[[], bytes], said: str) -> None:
    """Out of range, not finite, of another shape, or an output the file does not have."""
    with pytest.raises(ModelError, match=said):
        infer_and_judge(strange(), loaded(guarded(made())))


def test_rounding_is_no_breach() -> None:
    """A hair outside [0, 1] is brought inside, as for scores."""
    answers = [np.array([[1.0, 0.0]], np.float32), np.zeros((1, 2, 2), np.float32), np.array([1.004], np.float32)]
    assert checked(answers, 1, 2).novelty == np.array([1.0], np.float32)


def test_a_device_that_computes_another_novelty_does_not_use_the_bundle() -> None:
    """The self-test compares it where the manifest says one."""
    opened = guarded()
    ready = OnnxRuntime(opened.model, opened.manifest)
    cases = [case.model_copy(update={"novelty": 0.0}) for case in opened.manifest.self_test]

    def with_cases(novelty: float) -> Bundle:
        told = [cases[0], cases[1].model_copy(update={"novelty": novelty})]
        return replace(opened, manifest=opened.manifest.model_copy(update={"self_test": told}))

    self_test(with_cases(0.0), ready)
    with pytest.raises(BundleError, match=r"novelty is 0\.0, expected 0\.4 within"):
        self_test(with_cases(0.4), ready)


def test_replay_tells_novelty_and_reason(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One line per picture, as the hub will read it; the page says it in the same words."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, image in (("good", picture(5)), ("strange", strange(5))):
        (folder / f"{name}.png").write_bytes(png(image))
    opened = guarded()
    runtime = OnnxRuntime(opened.model, opened.manifest)
    verdicts = [Verdict.parse(v.canonical()) for v in replay(opened, runtime, folder, ["good.png", "strange.png"])]
    assert [v.decision for v in verdicts] == [Decision.OK, Decision.INCONCLUSIVE]
    assert [v.novelty for v in verdicts] == [0.0, 1.0]
    assert why_of(verdicts[1], "good") == "unlike anything the model has learnt: novelty 1.00, limit 0.50"
    assert json.loads(verdicts[0].canonical())["reason"] is None


def test_a_model_without_novelty_says_none_of_it() -> None:
    """Bundles of before go on as they were."""
    found, _ = infer_and_judge(strange(), loaded(open_bundle(bundle())))
    assert (found.outcome.decision, found.novelty) == (Decision.OK, None)
