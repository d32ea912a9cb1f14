"""Memory runs out under a large frame or a large model: ERROR with a reason, or 1 and NG; never OK, never for good."""

import resource
import time
from collections.abc import Callable

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from inspection.contracts import Decision, sha256_hex
from tests.conftest import faults_are_long
from tests.edge_agent.helpers import bundle, model
from tests.faults.hubs import HubServer
from tests.faults.rig import Device, Feeder, hub_holds, must_hold, put, settle, until
from tests.faults.sizes import memory_of

ROOMS_MIB = [2, 8, 24, 64, 96, 110, 160, 240, 320, 480, 640]
FRAME_ROOMS_MIB = ROOMS_MIB if faults_are_long() else [24]
MODEL_ROOMS_MIB = ROOMS_MIB if faults_are_long() else [110]
_SIDE = 5000  # 75 MB as a frame, four times that inside the model
_WEIGHT_MIB = 48
_TRIES = 3
_LIMITED_SECONDS = 20.0
_MIB = 1024 * 1024

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(3600 if faults_are_long() else 300)]


def limit(device: Device, room_mib: int) -> None:
    """From now on the agent may have so much more address space than it has."""
    most = memory_of(device.pid)["VmSize"] * 1024 + room_mib * _MIB
    resource.prlimit(device.pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def large_bad_picture() -> bytes:
    """A scratched part at a resolution that nobody planned for."""
    image = np.full((_SIDE, _SIDE, 3), 100, np.uint8)
    image[100:200, 100:200, 2] = 255
    done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return data.tobytes()


@pytest.mark.parametrize("room_mib", FRAME_ROOMS_MIB)
def test_a_frame_that_does_not_fit_into_memory(
    device: Device, server: HubServer, room_mib: int, say: Callable[[str], None]
) -> None:
    """The part is ERROR with a reason, or the agent leaves with 1; the other parts, and it, are judged in the end."""
    codes: list[int] = []
    with Feeder(device, every=0.05) as feeder:
        device.start()
        device.goes_on(25)
        limit(device, room_mib)
        put(device.pictures, "part-9999999.png", large_bad_picture())  # 9999999 is one of the bad ones
        for _ in range(_TRIES):
            if judged(device, "part-9999999"):
                break
            assert device.process is not None
            codes.append(device.process.poll() or 0)
            assert codes[-1] == 1, device.tail()
            assert device.outputs()[-1]["output"] == "NG"
            device.start()
            until(lambda: "started" in str(device.tail(3)) or not alive(device), "a restart")
            if alive(device):
                limit(device, room_mib)
        feeder.stop()
    device.kill()
    device.start()  # with all the memory there is
    feeder.parts.append("part-9999999")
    settle(device, feeder.parts)
    device.stop()
    (found,) = [row for row in device.rows() if row.part == "part-9999999"]
    why = next(v.reason for v in server.hub.verdicts.values() if v.part == "part-9999999")
    say(f"{room_mib} MiB of room: {found.decision.value} ({why}), left with {codes}")
    must_hold(device, feeder.parts)
    hub_holds(server, feeder.parts)
    assert found.decision is not Decision.OK
    assert "Traceback" not in device.words(), device.words()
    assert codes == [], "one frame too large for this computer must not stop the line"


def alive(device: Device) -> bool:
    """The agent runs."""
    return device.process is not None and device.process.poll() is None


def judged(device: Device, part: str) -> bool:
    """Whether the part got its row before the agent ended or gave up on it."""
    deadline = time.monotonic() + _LIMITED_SECONDS
    while alive(device) and time.monotonic() < deadline:
        if part in {row.part for row in device.rows()}:
            return True
        time.sleep(0.05)
    return part in {row.part for row in device.rows()}


def heavy_model() -> bytes:
    """The tiny model with weights of `_WEIGHT_MIB` that change nothing."""
    heavy = onnx.load_from_string(model())
    for node in heavy.graph.node:
        node.input[:] = ["same_gain" if name == "gain" else name for name in node.input]
    heavy.graph.initializer.append(numpy_helper.from_array(np.zeros(_WEIGHT_MIB * _MIB // 4, np.float32), "weights"))
    heavy.graph.node.insert(0, helper.make_node("ReduceMax", ["weights"], ["nothing"], keepdims=0))
    heavy.graph.node.insert(1, helper.make_node("Add", ["gain", "nothing"], ["same_gain"]))
    return bytes(heavy.SerializeToString())


@pytest.mark.parametrize("room_mib", MODEL_ROOMS_MIB)
def test_a_model_that_does_not_fit_into_memory(
    device: Device, server: HubServer, room_mib: int, say: Callable[[str], None]
) -> None:
    """The bundle that runs goes on; the one that does not fit is said in words, and runs as soon as there is memory."""
    data = bundle(2, model_bytes=heavy_model())
    with Feeder(device, every=0.05, ahead=40) as feeder:
        device.start()
        device.goes_on(25)
        limit(device, room_mib)
        asked = server.hub.requests.count("fetch")
        server.hub.assign(2, data, version=2)
        until(lambda: server.hub.requests.count("fetch") > asked, "the download")
        judged_before, until_then = device.count(), time.monotonic() + 3.0
        until(lambda: not alive(device) or time.monotonic() > until_then, "some seconds without memory")
        code = device.process.poll() if device.process is not None else None
        assert code in (None, 1)
        assert code == 1 or device.count() > judged_before, "the line stands still"
        trouble = server.hub.reports[-1].last_error
        device.kill()
        device.start()
        until(lambda: server.digest() == sha256_hex(data), f"the large bundle, refused: {server.hub.reports[-1].refused}")
        feeder.stop()
        feeder.write(3)
        settle(device, feeder.parts)
    device.stop()
    say(f"{room_mib} MiB of room: code {code}, {trouble}")
    decisions = must_hold(device, feeder.parts)
    hub_holds(server, feeder.parts)
    assert decisions[Decision.ERROR] == 0
    assert "Traceback" not in device.words(), device.words()
