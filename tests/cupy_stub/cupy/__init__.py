"""What array-api-compat and this package see of CuPy, on NumPy: the class of its arrays, their device, and `get`.

As in CuPy, results are arrays and never scalars, and an array of NumPy is refused beside one of these.
"""

import functools

import numpy
from numpy import *  # noqa: F403

__version__ = "13.0.0"
__all__ = [*numpy.__all__, "cuda", "ndarray"]


class ndarray:
    """An array that is on a device."""

    __array_ufunc__ = None

    def __init__(self, on_host):
        self._on_host = on_host

    def __array__(self, *given, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    @property
    def device(self):
        """Where it is."""
        return cuda.Device(0)

    def get(self):
        """A copy on the host."""
        return numpy.array(self._on_host)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._on_host, name)
        return _wrapped(value) if callable(value) else _on_device(value)


def _unwrapped(x):
    if isinstance(x, numpy.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(x, ndarray):
        return x._on_host
    if isinstance(x, dict):
        return {name: _unwrapped(value) for name, value in x.items()}
    return type(x)(map(_unwrapped, x)) if type(x) in (tuple, list) else x


def _on_device(x):
    if isinstance(x, (numpy.ndarray, numpy.generic)):
        return ndarray(numpy.asarray(x))
    return type(x)(map(_on_device, x)) if type(x) in (tuple, list) else x


def _wrapped(function):
    @functools.wraps(function)
    def wrapper(*arguments, **keywords):
        return _on_device(function(*_unwrapped(arguments), **_unwrapped(keywords)))

    return wrapper


def _operator(name):
    def operator(self, *others):
        result = getattr(self._on_host, name)(*_unwrapped(others))
        return self if result is self._on_host else _on_device(result)

    return operator


_OPERATORS = (
    "abs add and bool eq float floordiv ge getitem gt int invert le len lt matmul mod mul ne neg or pow setitem"
)
_OPERATORS += " sub truediv xor iadd iand imul ior isub itruediv"
_OPERATORS += " radd rand rmatmul rmul ror rpow rsub rtruediv rxor"
for _name in _OPERATORS.split():
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))

for _name in numpy.__all__:
    _value = getattr(numpy, _name)
    if callable(_value) and not isinstance(_value, type):
        globals()[_name] = _wrapped(_value)


def asarray(x, **options):
    """From anywhere, the host too."""
    return ndarray(numpy.asarray(_unwrapped(x) if not isinstance(x, numpy.ndarray) else x, **options))


from cupy import cuda, fft, linalg  # noqa: E402, F401
