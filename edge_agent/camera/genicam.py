"""GenICam cameras (GigE Vision, USB3 Vision) through harvesters and the maker's GenTL producer: the extra ``genicam``.

Settings are the camera's own feature names (`ExposureTime`, `Gain`, `Width`, ...; GenICam SFNC). The producer's ``.cti``
files are found through ``GENICAM_GENTL64_PATH``, as the GenTL standard says.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import DeviceError
from edge_agent.pictures import Image

_TO_BGR = {
    "Mono8": cv2.COLOR_GRAY2BGR,
    "RGB8": cv2.COLOR_RGB2BGR,
    "BayerRG8": cv2.COLOR_BayerRGGB2BGR,
    "BayerGR8": cv2.COLOR_BayerGRBG2BGR,
    "BayerGB8": cv2.COLOR_BayerGBRG2BGR,
    "BayerBG8": cv2.COLOR_BayerBGGR2BGR,
}


def to_bgr(data: NDArray[np.uint8], width: int, height: int, pixel_format: str) -> Image:
    """A buffer of ``width * height * channels`` bytes to a frame uint8 ``[H, W, 3]``. DeviceError on another format."""
    if pixel_format == "BGR8":
        return data.reshape(height, width, 3).copy()
    if pixel_format not in _TO_BGR:
        raise DeviceError(
            f"pixel format {pixel_format} is not understood; set PixelFormat to one of BGR8, {', '.join(_TO_BGR)}"
        )
    shape = (height, width, 3) if pixel_format == "RGB8" else (height, width)
    return np.asarray(cv2.cvtColor(data.reshape(shape), _TO_BGR[pixel_format]), dtype=np.uint8)


def producers(search: str) -> list[Path]:
    """The ``.cti`` files in the folders of ``GENICAM_GENTL64_PATH``. DeviceError when there is none."""
    found = [file for folder in search.split(os.pathsep) if folder for file in sorted(Path(folder).glob("*.cti"))]
    if not found:
        raise DeviceError(
            "no GenTL producer (.cti) was found: install the camera maker's driver package, and set GENICAM_GENTL64_PATH "
            "to the folder of its .cti file"
        )
    return found


class GenicamSource:
    """One camera by its serial number."""

    def __init__(self, serial: str) -> None:
        self._serial = serial
        self._harvester: Any = None
        self._camera: Any = None

    def open(self, settings: Mapping[str, float]) -> Mapping[str, float]:
        """See `source.Source`."""
        try:
            from harvesters.core import Harvester
        except ImportError:
            raise DeviceError("GenICam cameras need the extra: pip install '.[genicam]' in the checkout") from None
        self._harvester = Harvester()
        for producer in producers(os.environ.get("GENICAM_GENTL64_PATH", "")):
            self._harvester.add_file(str(producer))
        self._harvester.update()
        known = [str(device.serial_number) for device in self._harvester.device_info_list]
        if self._serial not in known:
            raise DeviceError(
                f"no GenICam camera {self._serial!r} here (known: {', '.join(known) or 'none'}); check its cable"
            )
        self._camera = self._harvester.create({"serial_number": self._serial})
        nodes = self._camera.remote_device.node_map
        for name, value in settings.items():
            getattr(nodes, name).value = value
        self._camera.start()
        return {name: float(getattr(nodes, name).value) for name in settings}

    def read(self) -> Image | None:
        """See `source.Source`."""
        with self._camera.fetch() as buffer:
            part = buffer.payload.components[0]
            return to_bgr(part.data, part.width, part.height, part.data_format)

    def close(self) -> None:
        """See `source.Source`."""
        if self._camera is not None:
            self._camera.destroy()
        if self._harvester is not None:
            self._harvester.reset()
