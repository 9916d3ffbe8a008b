"""Devices."""


class Device:
    """One device, the first."""

    def __init__(self, number=None):
        self.id = 0

    def __eq__(self, other):
        return isinstance(other, Device)

    def __hash__(self):
        return 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None
