"""Novelty: what good pictures alone tell, the graphs around it, and their files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from inspection.errors import UsageError
from inspection.models import catalogue
from inspection.models.deploy import ColdStartGraph, DeployGraph, GuardedGraph
from inspection.models.network import InspectionNet
from inspection.models.novelty import LEAST_PARTS, WIDTH, Novelty, learn_novelty
from inspection.release.export import OUTPUTS, export_onnx
from inspection.release.measure import scores_of, session_of
from inspection.release.quantize import float_nodes, quantize_int8

BACKBONE = "test_efficientnet"
SIDE = 96
SHARE = 0.05


def surface(seed: int) -> NDArray[np.uint8]:
    """A good part: brushed metal under changing light, with a hole always at the same place, uint8 [SIDE, SIDE, 3]."""
    rng = np.random.default_rng(seed)
    picture = rng.uniform(110, 140) + rng.normal(0, 8, (1, SIDE)) + rng.normal(0, 4, (SIDE, SIDE))
    picture += np.linspace(0, rng.uniform(-20, 20), SIDE)[:, None]
    picture[8:16, 8:16] = 30
    return np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def scratched(seed: int, row: int = 40, column: int = 44) -> NDArray[np.uint8]:
    """The same with a dark spot of 7 x 7 pixels, its upper left corner at ``row`` and ``column``."""
    picture = surface(seed)
    picture[row : row + 7, column : column + 7] = 25
    return picture


def frames(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """uint8 ``[N, H, W, 3]``."""
    return torch.from_numpy(np.stack(pictures))


def learnt(net: InspectionNet, count: int = 120, share: float = SHARE, seed: int = 0) -> Novelty:
    """What ``count`` good parts teach."""
    batches = [frames([surface(i) for i in range(start, min(start + 20, count))]) for start in range(0, count, 20)]
    return learn_novelty(net, batches, [f"part-{i}" for i in range(count)], share=share, seed=seed)


@pytest.fixture(scope="module")
def net() -> InspectionNet:
    """A small network with random weights."""
    torch.manual_seed(4)
    return catalogue.build(BACKBONE, 2, pretrained="none", height=SIDE, width=SIDE).eval()


@pytest.fixture(scope="module")
def graph(net: InspectionNet) -> ColdStartGraph:
    """A cold start on good surfaces."""
    return ColdStartGraph(net, learnt(net)).eval()


@pytest.fixture(scope="module")
def exported(graph: ColdStartGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its ONNX file."""
    path: Path = tmp_path_factory.mktemp("novelty") / "model.onnx"
    export_onnx(graph, path)
    return path


def ask(graph: ColdStartGraph, pictures: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, Tensor]:
    """Scores and maps."""
    with torch.inference_mode():
        scores, found = graph(frames(pictures))
    return scores, found


def test_a_defect_nobody_has_labelled_is_more_novel_than_any_good_part(graph: ColdStartGraph) -> None:
    """Unseen parts with a spot score above all unseen good ones."""
    good, _ = ask(graph, [surface(i) for i in range(1000, 1060)])
    bad, _ = ask(graph, [scratched(i) for i in range(2000, 2060)])
    assert float(bad[:, 1].min()) > float(good[:, 1].max())


@pytest.mark.parametrize(("row", "column"), [(40, 44), (20, 60), (75, 30)])
def test_the_map_marks_the_defect_and_agrees_with_the_score(graph: ColdStartGraph, row: int, column: int) -> None:
    """Wherever the spot lies, the map there is at least half its peak (the box people see); the peak is the score."""
    scores, found = ask(graph, [scratched(i, row, column) for i in range(20)])
    step = SIDE / found.shape[-1]
    for one, score in zip(found, scores[:, 1], strict=True):
        near = one[int(row / step) : int((row + 6) / step) + 1, int(column / step) : int((column + 6) / step) + 1]
        assert float(near.max()) >= float(one.max()) / 2
        assert float(one.median()) < float(one.max()) / 2
        assert float(one.max()) == pytest.approx(float(score), abs=1e-6)


@pytest.mark.real_data
@pytest.mark.parametrize(("row", "column"), [(40, 44), (20, 60), (75, 30)])
def test_with_learnt_features_the_map_is_highest_at_the_defect(real_data: Path, row: int, column: int) -> None:
    """With weights of ImageNet the peak is within 8 pixels of the spot on every part."""
    weights = real_data / "weights" / "mobilenetv2_100_timm_same_tf2ptq_dequant_fp16.pth"
    name = "mobilenetv2_100?pad_type=same&mean=0.5&std=0.5"
    net = catalogue.build(name, 2, pretrained=weights, height=SIDE, width=SIDE).eval()
    _, found = ask(ColdStartGraph(net, learnt(net, 60)).eval(), [scratched(i, row, column) for i in range(20)])
    step = SIDE / found.shape[-1]
    for one in found:
        y, x = divmod(int(one.argmax()), found.shape[-1])
        assert abs((y + 0.5) * step - (row + 3.5)) <= 8
        assert abs((x + 0.5) * step - (column + 3.5)) <= 8


def test_a_feature_in_the_wrong_place_is_novel(graph: ColdStartGraph) -> None:
    """What is usual is known by location: the hole every good part has is a defect elsewhere."""
    moved = [np.ascontiguousarray(surface(i)[::-1]) for i in range(3000, 3020)]
    scores, _ = ask(graph, moved)
    assert float(scores[:, 1].min()) > 0.5


def test_scores_are_probabilities_in_the_order_of_the_classes(net: InspectionNet, graph: ColdStartGraph) -> None:
    """Rows sum to one; where the second class is the good one, the columns change places."""
    pictures = [surface(1), scratched(2), np.zeros((30, 90, 3), np.uint8)]
    turned = catalogue.build(BACKBONE, 2, pretrained="none", height=SIDE, width=SIDE, good_index=1).eval()
    turned.load_state_dict(net.state_dict())
    for picture in pictures:
        scores, found = ask(graph, [picture])
        other, _ = ask(ColdStartGraph(turned, graph.novelty).eval(), [picture])
        assert torch.allclose(scores.sum(1), torch.ones(1))
        assert torch.allclose(scores, other.flip(1))
        assert 0 <= float(found.min()) <= float(found.max()) <= 1


@pytest.mark.parametrize("count", [40, 300])
def test_unseen_good_parts_reach_one_half_about_as_often_as_stated(net: InspectionNet, count: int) -> None:
    """Of 400 unseen good parts the share at 0.5 or more is one that a true rate of half to twice the stated explains."""
    scores, _ = ask(ColdStartGraph(net, learnt(net, count)).eval(), [surface(i) for i in range(5000, 5400)])
    above = int((scores[:, 1] >= 0.5).sum())
    assert binom.ppf(0.001, 400, SHARE / 2) <= above <= binom.ppf(0.999, 400, SHARE * 2)


@given(share=st.floats(0.001, 0.2), factor=st.floats(1.5, 4.0))
@settings(max_examples=8)
def test_a_smaller_share_makes_every_score_smaller(net: InspectionNet, share: float, factor: float) -> None:
    """Whoever allows fewer good parts above 0.5 gets lower scores for all, in the same order."""
    pictures = frames([surface(7), surface(8), scratched(9)])
    with torch.inference_mode():
        strict, lax = (ColdStartGraph(net, learnt(net, 20, s)).eval()(pictures)[0][:, 1] for s in (share, share * factor))
    assert bool((strict <= lax).all())
    assert torch.equal(strict.argsort(), lax.argsort())


def test_the_same_pictures_and_seed_teach_the_same(net: InspectionNet) -> None:
    """Bit for bit, and a saved state answers alike."""
    first, second = learnt(net, 30), learnt(net, 30)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    loaded = Novelty([first.state_dict()[f"levels.{i}.mean"].shape[0] for i in range(2)], first.size)
    loaded.load_state_dict(first.state_dict())
    ours, theirs = (ask(ColdStartGraph(net, n).eval(), [scratched(3)]) for n in (first, loaded))
    assert torch.equal(ours[1], theirs[1])


def test_a_constant_channel_and_equal_pictures_are_no_trouble(net: InspectionNet) -> None:
    """Good pictures that are all the same (a rendered product) give finite numbers, and a spot stands out of them."""
    same = frames([surface(0)] * 20)
    novelty = learn_novelty(net, [same], [str(i) for i in range(20)])
    scores, found = ask(ColdStartGraph(net, novelty).eval(), [surface(0), scratched(0)])
    assert bool(found.isfinite().all())
    assert float(scores[0, 1]) < 0.5 < float(scores[1, 1])


def test_wide_features_are_projected_to_a_bounded_width() -> None:
    """However many channels a backbone has, what is kept of a location stays small."""
    maps = [torch.randn(20, 200, 9, 5), torch.randn(20, 300, 5, 3), torch.randn(20, 10, 2, 2)]
    novelty = Novelty([m.shape[1] for m in maps], (9, 5))
    novelty.learn(maps, [str(i) for i in range(20)])
    assert novelty.embed(maps).shape == (20, 9, 5, WIDTH)
    found, found_map = novelty(maps)
    assert found.shape == (20,)
    assert found_map.shape == (20, 9, 5)
    assert bool(found_map.isfinite().all())


def test_pictures_of_one_part_never_vouch_for_each_other(net: InspectionNet) -> None:
    """Ten copies of every picture under the part's own name leave the scale where it was; as parts of their own they
    would make all others look novel."""
    pictures = [surface(i) for i in range(20)]
    once = learn_novelty(net, [frames(pictures)], [str(i) for i in range(20)])
    copies = frames(pictures * 10)
    named = learn_novelty(net, [copies], [str(i) for i in range(20)] * 10)
    unnamed = learn_novelty(net, [copies], [str(i) for i in range(200)])
    unseen = [surface(i) for i in range(7000, 7040)]
    honest, kept, fooled = (
        float(ask(ColdStartGraph(net, n).eval(), unseen)[0][:, 1].mean()) for n in (once, named, unnamed)
    )
    assert abs(kept - honest) < 0.1
    assert fooled > kept + 0.3


def frames_of(parts: int, seed: int) -> Tensor:
    """Feature maps ``[parts * FRAMES, 6, 4, 4]`` of good parts, part by part: now and then a frame is far off."""
    rng = np.random.default_rng(seed)
    size = rng.standard_t(4, (parts * FRAMES, 1, 1, 1))
    return torch.from_numpy(rng.normal(0, 1, (parts * FRAMES, 6, 4, 4)) * (1 + np.abs(size))).float()


FRAMES = 12


@pytest.mark.parametrize("given", [FRAMES, FRAMES // 3])
def test_a_part_of_many_frames_reaches_one_half_as_often_as_stated(given: int) -> None:
    """It is as novel as its worst frame, and frames have heavy tails; also where only some frames are learnt from."""
    maps = frames_of(200, seed=1).unflatten(0, (200, FRAMES))[:, :given].flatten(0, 1)
    novelty = Novelty([6], (4, 4))
    novelty.learn([maps], [f"part-{i // given}" for i in range(len(maps))], SHARE, FRAMES / given)
    unseen, _ = novelty([frames_of(400, seed=2)])
    above = int((unseen.unflatten(0, (400, FRAMES)).amax(1) >= 0.5).sum())
    assert binom.ppf(0.001, 400, SHARE / 2) <= above <= binom.ppf(0.999, 400, SHARE * 2)


@pytest.mark.parametrize(("pictures", "parts"), [(0, 0), (30, LEAST_PARTS - 1), (30, 29)])
def test_too_little_to_learn_from_is_refused_in_words(net: InspectionNet, pictures: int, parts: int) -> None:
    """No pictures, too few parts, or parts that do not match the pictures."""
    names = [f"part-{i % parts}" for i in range(pictures)] if parts != 29 else [f"part-{i}" for i in range(29)]
    with pytest.raises(UsageError, match=r"good pictures|name the part"):
        learn_novelty(net, [frames([surface(i)]) for i in range(pictures)], names)


def test_a_cold_start_knows_two_classes(graph: ColdStartGraph) -> None:
    """A network built for more is refused: its classes would get no score."""
    three = catalogue.build(BACKBONE, 3, pretrained="none", height=SIDE, width=SIDE)
    with pytest.raises(ValueError, match="3 classes"):
        ColdStartGraph(three, graph.novelty)


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (4, 30, 90, 3), (1, 300, 133, 3)])
def test_the_file_answers_like_torch(graph: ColdStartGraph, exported: Path, shape: tuple[int, int, int, int]) -> None:
    """A cold start has today's outputs under today's names, and the same numbers for frames of any size."""
    rng = np.random.default_rng(5)
    frame = (rng.integers(90, 150, shape) + 40 * rng.random((shape[0], 1, 1, 1))).astype(np.uint8)
    session = session_of(exported)
    assert [o.name for o in session.get_outputs()] == list(OUTPUTS)
    with torch.inference_mode():
        wanted = graph(torch.from_numpy(frame))
    for ours, theirs in zip(wanted, session.run(list(OUTPUTS), {"frame": frame}), strict=True):
        assert theirs.dtype == np.float32
        assert np.allclose(ours.numpy(), theirs, atol=1e-4)


def test_int8_leaves_the_distances_in_float(exported: Path, tmp_path: Path) -> None:
    """No node that reads what was learnt of good pictures is quantized, and the int8 file tells defects as well."""
    out = tmp_path / "int8.onnx"
    quantize_int8(exported, [surface(i)[None] for i in range(24)], out)
    model = onnx.load(exported)
    ours = {n.name for n in model.graph.node if any(i.startswith("novelty.") for i in n.input)}
    assert ours
    assert ours <= set(float_nodes(model))
    good = scores_of(out, [surface(i) for i in range(1000, 1040)])[:, 1]
    bad = scores_of(out, [scratched(i) for i in range(2000, 2040)])[:, 1]
    assert (bad[:, None] > good[None]).mean() > 0.98


def test_beside_a_classifier_a_foreign_picture_is_novel(net: InspectionNet, graph: ColdStartGraph, tmp_path: Path) -> None:
    """A third output, from the same features: near 1 for a blank, a noisy and a turned picture; good parts stay below."""
    classifier = DeployGraph(net).eval()
    guarded = GuardedGraph(classifier, graph.novelty).eval()
    path = tmp_path / "guarded.onnx"
    export_onnx(guarded, path)
    session = session_of(path)
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    foreign = [np.zeros((SIDE, SIDE, 3), np.uint8), noise, np.ascontiguousarray(np.rot90(surface(1), 2))]
    for picture in foreign:
        assert float(session.run(["novelty"], {"frame": picture[None]})[0][0]) > 0.9
    good = [float(session.run(["novelty"], {"frame": surface(i)[None]})[0][0]) for i in range(6000, 6040)]
    assert np.mean(np.array(good) < 0.5) > 0.8
    # Whoever asks for today's two outputs by name gets the classifier's own.
    with torch.inference_mode():
        wanted = classifier(frames([surface(3)]))
    for ours, theirs in zip(wanted, session.run(list(OUTPUTS), {"frame": surface(3)[None]}), strict=True):
        assert np.allclose(ours.numpy(), theirs, atol=1e-4)
