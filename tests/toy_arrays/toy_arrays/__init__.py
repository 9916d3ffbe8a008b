"""An array library, of which the package knows nothing."""

import numpy


class Array(numpy.ndarray):
    """NumPy's, under another name."""


def array(x):
    """From anything that NumPy reads."""
    return numpy.asarray(x).view(Array)
