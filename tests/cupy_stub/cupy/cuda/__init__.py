"""Devices."""

from cupy.cuda.device import Device  # noqa: F401
