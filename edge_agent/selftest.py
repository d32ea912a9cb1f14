"""The self-test: a bundle's own pictures, on this device's own runtime, before it may decide anything."""

from edge_agent.bundle import Bundle
from edge_agent.errors import BundleError, MisfitError, ModelError, PictureError
from edge_agent.inspecting import Loaded, infer_and_judge
from edge_agent.pictures import decode
from edge_agent.runtime import Runtime
from inspection.contracts import SelfTestCase

_MAX_BYTES = 64 * 1024 * 1024
_MAX_PIXELS = 64_000_000


def self_test(bundle: Bundle, runtime: Runtime) -> None:
    """BundleError when a picture gets another decision than the manifest says, or a score or the novelty beyond its
    tolerance."""
    loaded = Loaded(bundle, bundle.recipe, runtime)
    for case in bundle.manifest.self_test:
        difference = _difference(case, loaded)
        if difference is not None:
            raise BundleError(f"self-test {case.path} failed on this device: {difference}; the bundle is not activated")


def _difference(case: SelfTestCase, loaded: Loaded) -> str | None:
    try:
        image = decode(loaded.bundle.files[case.path], max_bytes=_MAX_BYTES, max_pixels=_MAX_PIXELS)
        judgement, _ = infer_and_judge(image, loaded)
    except (PictureError, ModelError, MisfitError) as error:
        return str(error)
    if judgement.outcome.decision is not case.decision:
        return f"decided {judgement.outcome.decision}, expected {case.decision}"
    for name, expected in case.scores.items():
        found = judgement.scores.get(name)
        if found is None or abs(found - expected) > case.tolerance:
            return f"score of {name} is {found}, expected {expected} within {case.tolerance}"
    if case.novelty is not None and (judgement.novelty is None or abs(judgement.novelty - case.novelty) > case.tolerance):
        return f"novelty is {judgement.novelty}, expected {case.novelty} within {case.tolerance}"
    return None
