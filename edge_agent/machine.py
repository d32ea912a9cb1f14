"""What the scores depend on beside the bundle: processor and libraries, for reports and passports."""

import ctypes
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_LIBRARIES = {"onnxruntime": "onnxruntime", "opencv": "opencv-python-headless", "numpy": "numpy"}
_OPTIONAL = {"openvino": "openvino"}  # named where they are installed
_ABSENT = "unknown"
_CPUINFO = Path("/proc/cpuinfo")
_STATUS = Path("/proc/self/status")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 128 * 1024  # mallopt(3)
_DOT_PRODUCTS = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
"""Instructions for int8 dot products, best first: int8 answers may differ between processors with and without."""


def describe() -> dict[str, str]:
    """Processor, its int8 instructions, system, Python and the libraries a verdict passes through, each by name."""
    facts = {
        "cpu": cpu_name(),
        "int8": next((name for name in _DOT_PRODUCTS if name in cpu_flags()), "none"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    libraries = {name: _version(distribution) for name, distribution in (_LIBRARIES | _OPTIONAL).items()}
    return facts | {name: said for name, said in libraries.items() if name in _LIBRARIES or said != _ABSENT}


def cpu_flags(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """What the first processor can do, as the kernel names it (x86: flags, ARM: Features); empty where it says nothing."""
    return frozenset((_said(cpuinfo, "flags") or _said(cpuinfo, "Features")).split())


def kernel_boot_id() -> str:
    """Which run of this computer it is (`random(4)`); empty where the system does not say."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def peak_memory_bytes() -> int:
    """The most this process has held resident so far. Not `getrusage`: that begins with what its parent held."""
    return int(_said(_STATUS, "VmHWM").split()[0]) * 1024


def give_back_large_blocks() -> bool:
    """From here on memory of a frame's size goes back to the system when it is freed. glibc otherwise learns to keep it,
    and small things that come to lie between hold it for good: some 10 MB. False with a C library that has no such setting.
    """
    if not platform.libc_ver()[0].startswith("glibc"):
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES))


def cpu_name(cpuinfo: Path = _CPUINFO) -> str:
    """The processor's name, or its architecture where it has none."""
    return _said(cpuinfo, "model name") or platform.machine()


def _said(file: Path, key: str) -> str:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == key), "")


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return _ABSENT
