"""What is shipped is the fastest that is good enough, never worse than the plain file; float where nothing is faster."""

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
        assert (chosen.speedup or 0) > 1
        assert chosen.agreement >= BAR.min_agreement
        assert chosen.accuracy_drop <= BAR.max_accuracy_drop


@given(others())
def test_what_is_shipped_is_never_worse_than_a_plain_file_that_would_do(rest: list[Measured]) -> None:
    """Where plain `quantize_static` is good enough and faster than float, the choice is as exact, and as fast but for what
    timing does not tell apart."""
    found = [REFERENCE, *rest]
    plain, chosen = plain_of(found), choose(found, BAR)
    if plain is not None and BAR.met_by(plain, REFERENCE) and (plain.speedup or 0) > 1:
        assert chosen.agreement >= plain.agreement
        assert chosen.lost <= plain.lost
        assert (chosen.speedup or 0) >= (1 - ALIKE) * (plain.speedup or 0)


@given(others())
def test_nothing_that_may_be_shipped_is_faster_or_as_fast_and_more_exact(rest: list[Measured]) -> None:
    """Of those that are good enough and no worse than the plain file none is faster by more than timing tells apart, and of
    those as fast as the fastest none decides more like its float file."""
    found = [REFERENCE, *rest]
    plain, chosen = plain_of(found), choose(found, BAR)
    limited = plain is not None and BAR.met_by(plain, REFERENCE) and (plain.speedup or 0) > 1
    may = [
        one for one in found if BAR.met_by(one, REFERENCE) and (not limited or (plain is not None and no_worse(one, plain)))
    ]
    fastest = max((one.speedup or 0) for one in may)
    if fastest > 1:
        assert (chosen.speedup or 0) >= (1 - ALIKE) * fastest
        as_fast = [
            one for one in may if one.speedup is not None and one.speedup > 1 and one.speedup >= (1 - ALIKE) * fastest
        ]
        assert all(one.agreement <= chosen.agreement for one in as_fast)


@given(others())
def test_the_order_of_the_builds_does_not_matter(rest: list[Measured]) -> None:
    """The same measurements give the same choice."""
    assert choose([REFERENCE, *reversed(rest)], BAR) == choose([REFERENCE, *rest], BAR)


@given(others())
def test_nobody_beats_the_pareto_set_and_everybody_else_is_beaten(rest: list[Measured]) -> None:
    """In speed, accuracy and nearness to the teacher; the reference or somebody better than it is always in."""
    found = [REFERENCE, *rest]
    front = pareto(found)

    def as_good(a: Measured, b: Measured) -> bool:
        faster = (a.speedup or 0) >= (b.speedup or 0)
        return faster and a.accuracy_drop <= b.accuracy_drop and a.teacher_agreement >= b.teacher_agreement

    timed = [one for one in found if one.error is None and one.speedup is not None]
    assert all(any(as_good(best, one) for best in front) for one in timed)
    assert not any(as_good(a, b) and not as_good(b, a) for a in timed for b in front)


@pytest.mark.parametrize(
    ("facts", "ships"),
    [
        ({}, True),
        ({"agreement": 0.97, "accuracy_drop": 0.02, "speedup": 1.01}, True),
        ({"accuracy_drop": -0.1}, True),
        ({"agreement": 0.969}, False),
        ({"accuracy_drop": 0.021}, False),
        ({"speedup": 1.0}, False),
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
    """One line each: shipped, reference, missing the bar, or why it was not measured."""
    found = [REFERENCE, measured(), measured("tensor", agreement=0.5), measured("entropy", error="does not load")]
    text = to_markdown(found, choose(found, BAR), BAR)
    rows = {line.split("|")[1].strip().split()[2]: line for line in text.splitlines() if line.startswith("| net")}
    assert "**shipped**" in rows["minmax"]
    assert "reference" in rows["float"]
    assert "misses the bar" in rows["tensor"]
    assert "does not load" in rows["entropy"]
    assert "Shipped: net 64x64 minmax on onnxruntime, 2.00 times as fast" in text
    assert "none of the good ones is faster" in to_markdown([REFERENCE], REFERENCE, BAR)
