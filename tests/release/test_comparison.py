"""What a comparison says, and that it does not say more than the numbers do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from inspection.errors import UsageError
from inspection.release.comparison import Device, Standing, Trial, conclusion, pareto, standings

CLASSES = ["good", "dent", "scratch"]


def trial(backbone: str, named: list[str], truth: list[str], *, seed: int = 0, budget: int | None = None) -> Trial:
    """One training's answers; each picture is a part."""
    return Trial(
        backbone=backbone,
        family=backbone,
        budget=budget,
        seed=seed,
        pictures=(budget or 500) * 2,
        seconds=1.0,
        started_from="pretrained: none",
        parts=[f"p{i}" for i in range(len(truth))],
        truth=truth,
        named=named,
    )


def answers(truth: list[str], share_right: float, rng: np.random.Generator) -> list[str]:
    """So many right at random."""
    wrong = {"good": "dent", "dent": "scratch", "scratch": "good"}
    return [label if rng.random() < share_right else wrong[label] for label in truth]


def truth(per_class: int) -> list[str]:
    """As many of each class."""
    return [name for name in CLASSES for _ in range(per_class)]


def test_the_figure_is_the_mean_of_the_recalls() -> None:
    """A rare class weighs as much as a frequent one."""
    labels = ["good"] * 90 + ["dent"] * 10
    (standing,) = standings([trial("net", ["good"] * 100, labels)])
    assert standing.figures["net"].value == pytest.approx(0.5)


@pytest.mark.parametrize(("per_class", "low"), [(10, 0.88), (40, 0.965)])
def test_all_of_a_few_is_no_certainty(per_class: int, low: float) -> None:
    """Three classes of ten parts, all named right: the interval is that of so few, and narrower with more."""
    labels = truth(per_class)
    (standing,) = standings([trial("net", labels, labels)])
    figure = standing.figures["net"]
    assert (figure.value, figure.high) == (1.0, 1.0)
    assert figure.low == pytest.approx(low, abs=0.015)


@pytest.mark.parametrize("share", [0.9, 0.98])
def test_a_figure_s_interval_covers_the_truth_at_its_level(share: float) -> None:
    """Also near the ceiling, where a bootstrap alone is blind: 60 parts, one training, in 300 repeats."""
    rng, labels, covered = np.random.default_rng(5), truth(20), 0
    for _ in range(300):
        (standing,) = standings([trial("net", answers(labels, share, rng), labels)])
        covered += standing.figures["net"].low <= share <= standing.figures["net"].high
    assert binomtest(covered, 300, 0.93, alternative="less").pvalue > 1e-3


def test_a_clear_lead_is_shown_and_a_small_one_is_not() -> None:
    """Ninety against sixty per cent of 300 parts; ninety against eighty-nine."""
    rng = np.random.default_rng(1)
    labels = truth(100)
    trials = [
        trial(name, answers(labels, share, rng), labels, seed=seed)
        for name, share in (("a", 0.9), ("b", 0.6), ("c", 0.89))
        for seed in range(3)
    ]
    (standing,) = standings(trials)
    assert set(standing.level) == {"a", "c"}
    (said, device) = conclusion(
        [standing], trials, [Device(backbone="c", float_ms=3.0, float_bytes=9, int8_ms=2.0, int8_bytes=3)]
    )
    assert "beats b by" in said
    assert "not told apart from" in said
    assert "c is the fastest on this processor: 2.0 ms in int8" in device
    unlike = Device(backbone="c", float_ms=3.0, float_bytes=9, int8_ms=2.0, int8_bytes=3, int8_equal=0.8, why="80 % equal")
    assert "3.0 ms in float (int8: 80 % equal)" in conclusion([standing], trials, [unlike])[-1]


@pytest.mark.parametrize(
    ("networks", "seeds", "between"),
    [
        (6, 3, [0.0]),
        (6, 3, [0.04]),
        (6, 2, [0.04]),
        (2, 3, [0.04]),
        pytest.param(6, 3, [0.08] + [0.01] * 5, id="one that hangs on its seed"),
    ],
)
def test_networks_that_are_alike_are_rarely_told_apart(networks: int, seeds: int, between: list[float]) -> None:
    """Networks of one strength, whose trainings differ by so much: in at most one comparison in twenty does the best seem
    to beat any."""
    rng = np.random.default_rng(2)
    labels = truth(40)
    deviations = (between * networks)[:networks]
    told, runs = 0, 100
    for _ in range(runs):
        strengths = np.clip(0.8 + rng.normal(size=(seeds, networks)) * deviations, 0.05, 0.98)
        trials = [
            trial(f"n{n}", answers(labels, strengths[s, n], rng), labels, seed=s)
            for n in range(networks)
            for s in range(seeds)
        ]
        (standing,) = standings(trials)
        told += any(lead.shown for lead in standing.leads)
    assert binomtest(told, runs, 0.05, alternative="greater").pvalue > 0.01


def test_networks_that_name_equally_many_are_called_so() -> None:
    """Not one of them the best by the last digit of a sum; the slower one is not on the line of what nothing beats."""
    labels = truth(3)
    wrong = ["dent", *labels[1:]]
    other = [*labels[:2], "dent", *labels[3:]]
    trials = [trial("a", wrong, labels), trial("b", other, labels), trial("c", ["dent"] * 9, labels)]
    (standing,) = standings(trials)
    said = conclusion([standing], trials, [])
    assert said[0].startswith("With all 1000 pictures, a and b name most right, equally many: 88.9%")
    assert "a is not told apart from b" not in said[0]
    devices = [Device(backbone=name, float_ms=ms, float_bytes=1) for name, ms in (("a", 2.0), ("b", 1.0))]
    assert pareto(standing, devices) == ["b"]


def test_one_training_each_is_called_so() -> None:
    """Nothing is known of a second one, and no interval has it; with two seeds there is nothing to say."""
    labels = truth(20)
    once = [trial("a", labels, labels), trial("b", labels, labels)]
    assert "Each was trained once" in conclusion(standings(once), once, [])[1]
    twice = [*once, *(one.model_copy(update={"seed": 1}) for one in once)]
    assert len(conclusion(standings(twice), twice, [])) == 1


def test_pictures_of_one_part_are_not_so_many_parts() -> None:
    """Ten copies of each picture make no interval narrower."""
    rng = np.random.default_rng(3)
    labels = truth(20)
    named = answers(labels, 0.8, rng)
    once = trial("net", named, labels)
    ten = once.model_copy(update={"parts": once.parts * 10, "truth": labels * 10, "named": named * 10})
    (single,), (many,) = standings([once]), standings([ten])
    width = [s.figures["net"].high - s.figures["net"].low for s in (single, many)]
    assert width[0] == pytest.approx(width[1], rel=0.02)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(CLASSES), min_size=6, max_size=40), st.integers(0, 2**16))
def test_the_interval_holds_the_figure_and_the_order_is_by_it(labels: list[str], seed: int) -> None:
    """Whatever the answers."""
    rng = np.random.default_rng(seed)
    (standing,) = standings([trial(f"n{n}", answers(labels, 0.7, rng), labels) for n in range(3)])
    values = [figure.value for figure in standing.figures.values()]
    assert values == sorted(values, reverse=True)
    assert all(0 <= f.low <= f.value + 1e-9 and f.value <= f.high + 1e-9 <= 1 + 2e-9 for f in standing.figures.values())
    assert all(lead.points >= 0 for lead in standing.leads)


def test_a_change_of_the_lead_with_more_pictures_is_said() -> None:
    """One is best with few, and beaten with all."""
    rng = np.random.default_rng(4)
    labels = truth(150)
    shares = {("cnn", 50): 0.8, ("vit", 50): 0.6, ("cnn", None): 0.85, ("vit", None): 0.97}
    trials = [
        trial(name, answers(labels, share, rng), labels, budget=budget, seed=seed)
        for (name, budget), share in shares.items()
        for seed in range(3)
    ]
    said = conclusion(standings(trials), trials, [])
    assert said[0].startswith("With 50 pictures of each class (100), cnn names most right")
    assert said[1].startswith("With all 1000 pictures, vit names most right")
    assert said[2] == "cnn, the best with fewer pictures, is beaten by vit with all 1000 pictures."


def test_a_lead_that_may_be_the_weights_is_called_so() -> None:
    """Networks that learnt elsewhere beside ones that did not; of a file its name is said, not where it lay."""
    labels = truth(20)
    trials = [trial("cnn", labels, labels), trial("vit", labels, labels)]
    assert not any("begin alike" in said for said in conclusion(standings(trials), trials, []))
    learnt = trials[0].model_copy(update={"started_from": "pretrained: /home/anna/cnn.pth; no warm start"})
    assert learnt.began == "cnn.pth; no warm start"
    trials[0] = learnt
    said = conclusion(standings(trials), trials, [])[1]
    assert said.startswith("They did not begin alike, so a lead may be that of learnt weights: ")
    assert said.endswith(": cnn had them, vit began with random weights.")
    trials.append(learnt.model_copy(update={"backbone": "net"}))
    said = conclusion(standings(trials), trials, [])[1]
    assert said.endswith(": the others had them, vit began with random weights.")


def test_trials_of_other_pictures_or_with_gaps_are_refused() -> None:
    """Numbers that were not paired are not compared."""
    labels = truth(5)
    one, other = trial("a", labels, labels), trial("b", labels[:-1], labels[:-1])
    with pytest.raises(UsageError, match="not judged on the same pictures"):
        standings([one, other])
    with pytest.raises(UsageError, match="b with seed 1, all 1000 pictures, is missing"):
        standings([one, trial("a", labels, labels, seed=1), trial("b", labels, labels)])
    with pytest.raises(UsageError, match="b with seed 0, 5 pictures of each class"):
        standings([one, trial("b", labels, labels), trial("a", labels, labels, budget=5)])


def test_pareto_keeps_what_no_other_beats_in_both() -> None:
    """The slow one that is no better goes."""
    rng = np.random.default_rng(5)
    labels = truth(100)
    strength = {"fast": 0.6, "slow": 0.9, "slower": 0.7}
    (standing,) = standings([trial(name, answers(labels, share, rng), labels) for name, share in strength.items()])
    devices = [
        Device(backbone=name, float_ms=ms, float_bytes=1) for name, ms in (("fast", 1.0), ("slow", 5.0), ("slower", 9.0))
    ]
    assert pareto(standing, devices) == ["fast", "slow"]
    assert isinstance(standing, Standing)
