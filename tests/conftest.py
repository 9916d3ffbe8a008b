"""How the tests run: one process per framework, in one pytest run.

`import tensorflow` and then anything that imports triton, `torch.compile` for one, aborts the interpreter, and Keras, x64
and thread counts are settings of a process. So no process here loads two frameworks. A test that takes the `framework`
fixture runs once for each framework, in that framework's process; a test marked `@pytest.mark.framework("torch")` runs in
that one; all others run in a process without any. Each backend of Keras has a process, too, for the tests that take the
`keras` fixture. The processes are pytest-xdist workers, which `pytest` starts by itself:

    pytest                                   everything
    pytest tests/test_losses.py -k sincere   some of it
    pytest --framework torch -x --pdb        one framework, in this process
    pytest -n0                               this process alone: NumPy, array-api-strict and the tests without a framework

A framework that is not installed is skipped, or fails if the environment variable SINCERE_SPEC_EXPECT names it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

PROCESSES = {
    "none": (),
    "numpy": ("numpy", "array_api_strict"),
    "torch": ("torch",),
    "jax": ("jax",),
    "tensorflow": ("tensorflow",),
}
FRAMEWORKS = [name for names in PROCESSES.values() for name in names]
KERAS = {"keras_tensorflow": "tensorflow", "keras_jax": "jax", "keras_torch": "torch"}
PROCESSES |= {name: (name,) for name in KERAS}

# What may not be loaded in a process, whoever loads it. TensorFlow imports jax by itself, where it finds it; Keras both.
FOREIGN = {
    "none": {"torch", "jax", "tensorflow"},
    "numpy": {"torch", "jax", "tensorflow"},
    "torch": {"jax", "tensorflow"},
    "jax": {"torch", "tensorflow"},
    "tensorflow": {"torch"},
}

for _name, _value in {
    "JAX_ENABLE_X64": "1",
    "JAX_NUM_CPU_DEVICES": "4",
    "JAX_PLATFORMS": "cpu",
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TRITON_INTERPRET": "1",
}.items():
    os.environ.setdefault(_name, _value)

# No test asserts a time: a busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--framework",
        choices=list(PROCESSES),
        help="run the tests of this framework only, in this process (so with --pdb)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "framework(*names): the test runs once for each of these, in its process")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads this option
def pytest_cmdline_main(config: pytest.Config) -> None:
    option = config.option
    if hasattr(config, "workerinput") or not config.pluginmanager.hasplugin("xdist"):
        return  # this is one of the processes already, or there can be no others
    if option.framework or option.usepdb or option.collectonly:
        option.numprocesses = 0
    elif option.numprocesses in (None, "auto", "logical"):
        option.numprocesses = len(PROCESSES)
    if option.numprocesses and option.numprocesses < len(PROCESSES):
        raise pytest.UsageError(f"one process per framework: -n{len(PROCESSES)}, or --framework NAME")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """All tests of a process are one unit of work, and there are as many workers as units.

    `--dist=loadgroup` would do, but loses its groups from pytest 9.2 on: pytest-dev/pytest-xdist#1386.
    """
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class OneUnitPerProcess(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return process_of(nodeid)

        def remove_node(self, node: object) -> str | None:
            crashed = super().remove_node(node)
            if crashed:  # the next worker of this process goes on after it: what ended one interpreter ends the next
                unit = self.workqueue[process_of(crashed)]
                unit[crashed] = True
                if all(unit.values()):
                    del self.workqueue[process_of(crashed)]
            return crashed

    return OneUnitPerProcess(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A worker that has run its tests ends, and gives its memory back. pytest-xdist keeps it until the last one has."""
    if not error:
        node.gateway.exit()


def process_of(nodeid: str) -> str:
    """The process of a test: that of the framework in the brackets of its id, if there is one."""
    words = set(re.split(r"[\[\]-]", nodeid.partition("[")[2]))
    return next((process for process, names in PROCESSES.items() if words & set(names)), "none")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("framework")
    if marker:
        if "framework" not in metafunc.fixturenames:
            metafunc.fixturenames.append("framework")
        metafunc.parametrize("framework", marker.args, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    option = config.option
    if hasattr(config, "workerinput") or (option.collectonly and not option.framework):
        return
    here = {option.framework} if option.framework else {"none", "numpy"}
    elsewhere = [item for item in items if process_of(item.nodeid) not in here]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if process_of(item.nodeid) in here]


def pytest_runtest_teardown(item: pytest.Item) -> None:
    process = process_of(item.nodeid)
    foreign = sorted(FOREIGN.get(process, set()) & sys.modules.keys())
    assert not foreign, f"{', '.join(foreign)} was loaded in the process of {process!r}; one framework per process"


def need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        if module in os.environ.get("SINCERE_SPEC_EXPECT", "").replace(",", " ").split():
            pytest.fail(f"{module} is not installed, and SINCERE_SPEC_EXPECT names it")
        pytest.skip(f"{module} is not installed")


@pytest.fixture(autouse=True, scope="module")
def _programs_are_freed():
    """JAX keeps every compiled program until it is told otherwise: gigabytes in the end. Files share few of them."""
    yield
    if "jax" in sys.modules and hasattr(sys.modules["jax"], "clear_caches"):
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session", name="need")
def _need():
    """Skips the test, or fails it if SINCERE_SPEC_EXPECT says so, unless a module is installed. Imports nothing."""
    return need


@pytest.fixture(scope="session", params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    """The name of the framework whose process this is: the root package of its arrays."""
    need(request.param)
    return request.param


@pytest.fixture(scope="session", params=KERAS)
def keras(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Keras on the backend whose process this is, and that backend as it is without the settings of the other tests."""
    need("keras")
    need(KERAS[request.param])
    os.environ["KERAS_BACKEND"] = KERAS[request.param]
    os.environ["KERAS_HOME"] = str(tmp_path_factory.mktemp("keras"))
    os.environ["JAX_ENABLE_X64"] = "0"
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # XLA's, which are most of the time of these tests
    keras = importlib.import_module("keras")
    assert keras.config.backend() == KERAS[request.param]
    return keras
