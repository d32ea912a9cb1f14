"""Which runtime runs a bundle: the one its manifest names. What this station lacks is said before anything is activated."""

from importlib.metadata import PackageNotFoundError, version

from edge_agent.errors import LackError
from edge_agent.runtime import OnnxRuntime, Runtime
from inspection.contracts import ONNXRUNTIME, OPENVINO, Manifest


def make_runtime(model: bytes, manifest: Manifest, *, threads: int = 1) -> Runtime:
    """``model`` on the runtime of ``manifest``. LackError when this agent knows none of that name or it is not installed,
    ModelError or ShortageError when the model does not load in it."""
    if manifest.runtime == ONNXRUNTIME:
        return OnnxRuntime(model, manifest, threads=threads)
    if manifest.runtime != OPENVINO:
        raise LackError(
            f"this bundle was built for the runtime {manifest.runtime!r}, which this agent does not know: "
            "update the agent, or build for a runtime of `edge-agent doctor --json`"
        )
    if OPENVINO not in present():
        raise LackError(
            "this bundle was built for OpenVINO, which this station does not have: "
            "pip install openvino there (the wheel's extra of that name), or build without it"
        )
    from edge_agent.openvino_runtime import OpenVinoRuntime  # 30 MB that other stations do not hold

    return OpenVinoRuntime(model, manifest, threads=threads)


def present() -> dict[str, str]:
    """Versions of the runtimes that are installed here, by name."""
    found = {}
    for name in (ONNXRUNTIME, OPENVINO):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
