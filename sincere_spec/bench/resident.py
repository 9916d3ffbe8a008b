"""The memory of a process, as the system counts it."""

from __future__ import annotations

import gc
import sys


def _status(field: str, process: int | str) -> int | None:
    try:
        with open(f"/proc/{process}/status", encoding="ascii", errors="replace") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        return None


def resident(process: int | str = "self") -> int | None:
    """Bytes of a process in memory now; None where the system does not say, or the process has ended."""
    return _status("VmRSS", process)


def release() -> None:
    """Give back to the system what is free, so that the next call has to ask for it again."""
    gc.collect()
    if sys.platform == "linux":
        import contextlib
        import ctypes

        with contextlib.suppress(OSError, AttributeError):  # a libc without malloc_trim
            ctypes.CDLL(None).malloc_trim(0)


class Peak:
    """The high-water mark of this process from here on."""

    def __init__(self) -> None:
        release()
        try:
            with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
                file.write("5")
            self.method = "VmHWM, reset"
        except OSError:
            self.method = "ru_maxrss"
        self.level = resident() if self.method != "ru_maxrss" else _maximum()

    def bytes(self) -> int:
        """How far the mark is above the level at the start."""
        mark = _status("VmHWM", "self") if self.method != "ru_maxrss" else _maximum()
        return max((mark or 0) - (self.level or 0), 0)


def _maximum() -> int:
    """Without a reset: the largest ever, which misses what stays under an earlier peak."""
    import resource

    mark = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return mark if sys.platform == "darwin" else mark * 1024
