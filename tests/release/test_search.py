"""What is shipped is the fastest that is good enough, never worse than the plain file; float where nothing is faster."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.release.search import (
    ALIKE,
    FLOAT,
    PLAIN,
    Bar,
    Build,
    Measured,
    choose,
    finalists,
    no_worse,
    pareto,
    plain_of,
    to_markdown,
)

BAR = Bar(min_agreement=0.97, max_accuracy_drop=0.02)


def measured(
    quantizer: str = "minmax", *, student: str = "student", runtime: str = "onnxruntime", **facts: object
) -> Measured:
    """A build that is good enough and twice as fast, but for ``facts``."""
    build = Build(student=student, backbone="net", height=64, width=64, quantizer=quantizer, runtime=runtime)
    good = {"agreement": 1.0, "teacher_agreement": 0.9, "accuracy_drop": 0.0, "latency_ms": 2.0, "speedup": 2.0}
    return Measured.model_validate({"build": build, "file": f"{student}-{quantizer}.onnx"} | good | facts)


REFERENCE = measured(FLOAT, speedup=1.0, latency_ms=4.0)
SHARES = st.one_of(st.floats(0.9, 1.0), st.sampled_from([0.97, 1.0]))


@st.composite
def others(draw: st.DrawFn) -> list[Measured]:
    """Any builds beside the reference, the plain one mostly among them."""
    quantizers = st.sampled_from([PLAIN, "minmax", "stem", "tensor", "qat", FLOAT])
    runtimes, students = st.sampled_from(["onnxruntime", "openvino"]), st.sampled_from(["student", "b"])
    keys = draw(st.lists(st.tuples(quantizers, runtimes, students), unique=True, max_size=8))
    found = []
    for quantizer, runtime, student in keys:
        if (quantizer, runtime, student) == (FLOAT, "onnxruntime", "student"):
            continue
        facts = {
            "agreement": draw(SHARES),
            "teacher_agreement": draw(SHARES),
            "accuracy_drop": draw(st.floats(-0.05, 0.05)),
            "speedup": draw(st.one_of(st.none(), st.floats(0.3, 5.0))),
            "error": draw(st.sampled_from([None, None, None, "does not load"])),
        }
        found.append(measured(quantizer, runtime=runtime, student=student, **facts))
    return found


@given(others())
def test_what_is_shipped_is_good_enough_and_faster_or_it_is_float(rest: list[Measured]) -> None:
    """No limit is ever bent, nothing slower than float replaces it, and what failed or was not timed is out."""
    chosen = choose([REFERENCE, *rest], BAR)
    if chosen != REFERENCE:
        assert chosen.error is None
        assert (chosen.speedup or 0) * (1 - ALIKE) > 1
        assert chosen.agreement >= BAR.min_agreement
        assert chosen.accuracy_drop <= BAR.max_accuracy_drop
        assert chosen in pareto([REFERENCE, *rest])


@given(others())
def test_what_is_shipped_is_never_worse_than_a_plain_file_that_would_do(rest: list[Measured]) -> None:
    """Where plain `quantize_static` is good enough and faster than float, the choice is as exact, and as fast but for what
    timing does not tell apart."""
    found = [REFERENCE, *rest]
    plain, chosen = plain_of(found), choose(found, BAR)
    if plain is not None and BAR.met_by(plain, REFERENCE) and (plain.speedup or 0) * (1 - ALIKE) > 1:
        assert chosen.agreement >= plain.agreement
        assert chosen.lost <= plain.lost + 1e-9
        assert (chosen.speedup or 0) >= (1 - ALIKE) * (plain.speedup or 0)


@given(others())
def test_nothing_that_may_be_shipped_is_faster_or_as_fast_and_more_exact(rest: list[Measured]) -> None:
    """Of those that are good enough and no worse than the plain file none is faster by more than timing tells apart, and of
    those as fast as the fastest none loses less, nor as little and decides more like its float file."""
    found = [REFERENCE, *rest]
    plain, chosen = plain_of(found), choose(found, BAR)
    faster = [one for one in rest if (one.speedup or 0) * (1 - ALIKE) > 1 and BAR.met_by(one, REFERENCE)]
    may = [one for one in faster if no_worse(one, plain)] if plain is not None and plain in faster else faster
    assert (chosen in may) == bool(may)
    if may:
        fastest = max((one.speedup or 0) for one in may)
        assert (chosen.speedup or 0) >= (1 - ALIKE) * fastest
        as_fast = [one for one in may if (one.speedup or 0) >= (1 - ALIKE) * fastest]
        assert all((one.lost, -one.agreement) >= (chosen.lost, -chosen.agreement) for one in as_fast)


@given(others(), st.randoms(use_true_random=False))
def test_what_would_be_chosen_is_timed_often_though_a_few_turns_misjudge_it(
    rest: list[Measured], random: random.Random
) -> None:
    """A few turns that err by as much as many tell apart leave out nothing that many would choose: neither the fastest nor,
    of those about as fast, the most exact."""
    found = [REFERENCE, *(one for one in rest if one.speedup)]
    chosen = choose(found, BAR)
    seen = [
        one.model_copy(update={"speedup": (one.speedup or 0) * random.uniform(1 - ALIKE / 2, 1 + ALIKE / 2)})
        for one in found[1:]
    ]
    kept = finalists([REFERENCE, *seen], BAR, count=len(found))
    assert REFERENCE.build in kept
    assert chosen.build in kept


def test_the_most_exact_of_those_about_as_fast_is_a_finalist() -> None:
    """Though three others were a little faster in a few turns; and what the plain file beats takes nobody's place."""
    hasty = [measured(name, agreement=0.975, speedup=1.55) for name in ("minmax", "percentile", "tensor")]
    exact, plain = measured("stem", agreement=0.999, speedup=1.53), measured(PLAIN, agreement=0.97, speedup=1.2)
    assert exact.build in finalists([REFERENCE, *hasty, exact, plain], BAR, 3)
    better = plain.model_copy(update={"agreement": 0.99})
    assert set(finalists([REFERENCE, *hasty, exact, better], BAR, 3)) == {REFERENCE.build, exact.build, better.build}


def test_agreement_with_an_own_float_file_does_not_outweigh_what_is_lost() -> None:
    """Another student may agree with itself and be worse than the plan's own."""
    own = measured("stem", agreement=0.998, accuracy_drop=0.0, speedup=2.0)
    other = measured("stem", student="b", agreement=0.999, accuracy_drop=0.019, speedup=1.95)
    assert choose([REFERENCE, own, other], BAR) == own


@given(others())
def test_the_order_of_the_builds_does_not_matter(rest: list[Measured]) -> None:
    """The same measurements give the same choice."""
    assert choose([REFERENCE, *reversed(rest)], BAR) == choose([REFERENCE, *rest], BAR)


@given(others())
def test_nobody_beats_the_pareto_set_and_everybody_else_is_beaten(rest: list[Measured]) -> None:
    """In speed, accuracy, nearness to the teacher and to its own float file; the reference or a better one is always in."""
    found = [REFERENCE, *rest]
    front = pareto(found)

    def as_good(a: Measured, b: Measured) -> bool:
        faster = (a.speedup or 0) >= (b.speedup or 0)
        near = a.teacher_agreement >= b.teacher_agreement and a.agreement >= b.agreement
        return faster and near and a.accuracy_drop <= b.accuracy_drop

    timed = [one for one in found if one.error is None and one.speedup is not None]
    assert all(any(as_good(best, one) for best in front) for one in timed)
    assert not any(as_good(a, b) and not as_good(b, a) for a in timed for b in front)


@pytest.mark.parametrize(
    ("facts", "ships"),
    [
        ({}, True),
        ({"agreement": 0.97, "accuracy_drop": 0.02, "speedup": 1.06}, True),
        ({"accuracy_drop": -0.1}, True),
        ({"agreement": 0.969}, False),
        ({"accuracy_drop": 0.021}, False),
        ({"accuracy_drop": 0.98 - 0.96}, True),
        ({"speedup": 1.05}, False),
        ({"speedup": 0.7}, False),
        ({"speedup": None}, False),
        ({"error": "does not load"}, False),
        ({"teacher_agreement": 0.87}, True),
        ({"teacher_agreement": 0.86}, False),
    ],
)
def test_the_limits_are_included(facts: dict[str, object], ships: bool) -> None:
    """A small file that is no faster, decides otherwise, or is further from the teacher is not worth its loss."""
    other = measured(**facts)
    assert choose([REFERENCE, other], BAR) == (other if ships else REFERENCE)


def test_a_faster_file_that_is_less_exact_than_the_plain_one_is_not_shipped() -> None:
    """Though it is within the limits: whoever would have taken the plain file must not regret it."""
    plain = measured(PLAIN, agreement=0.99, speedup=1.8)
    fast = measured("percentile", agreement=0.98, speedup=2.5)
    assert choose([REFERENCE, plain, fast], BAR) == plain
    assert choose([REFERENCE, plain.model_copy(update={"agreement": 0.5}), fast], BAR) == fast


def test_of_files_equally_fast_the_most_exact_is_shipped() -> None:
    """Chance decides which of two timings is a little shorter; it must not decide what is shipped."""
    fast, exact = measured("minmax", agreement=0.98, speedup=1.52), measured("stem", agreement=0.995, speedup=1.47)
    assert choose([REFERENCE, fast, exact], BAR) == exact
    assert choose([REFERENCE, fast, exact.model_copy(update={"speedup": 1.4})], BAR) == fast


def test_the_table_names_every_build_and_what_became_of_it() -> None:
    """One line each: shipped, reference, missing the bar, or why it was not measured; and which student's, if need be."""
    twin = measured("tensor", student="student-2", speedup=0.5)
    found = [REFERENCE, measured(), measured("tensor", agreement=0.5), twin, measured("entropy", error="does not load")]
    text = to_markdown(found, choose(found, BAR), BAR)
    of_the_first, of_the_second = (line for line in text.splitlines() if "tensor on onnxruntime (student" in line)
    assert "(student-2)" in of_the_second
    assert "misses the bar" in of_the_first
    rows = {line.split("|")[1].strip().split()[2]: line for line in text.splitlines() if line.startswith("| net")}
    assert "**shipped**" in rows["minmax"]
    assert "reference" in rows["float"]
    assert "does not load" in rows["entropy"]
    assert "Shipped: net 64x64 minmax on onnxruntime, 2.00 times as fast" in text
    slow = [REFERENCE, measured(speedup=0.9)]
    assert "as near to the teacher); none of the good ones is faster." in to_markdown(slow, REFERENCE, BAR)
    assert "0 of 0 int8 builds are good enough" in (alone := to_markdown([REFERENCE], REFERENCE, BAR))
    assert "faster." not in alone
