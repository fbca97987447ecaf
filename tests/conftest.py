"""What every test may use: coroutines, the command in its own process, and the program, compiled."""

import asyncio
import inspect
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Where the command keeps its compiled programs too: a second run of the tests starts in no time.
CACHE = Path(__file__).parents[1] / ".predictor" / "cache"


def pytest_configure() -> None:
    """A shell that runs the tests in the background has them ignore interrupts, and all that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test that is a coroutine in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(scope="session")
def program():
    """Compiled before any worker starts, which then only loads it: no test waits for a compiler."""
    from predictor_core import PredictorConfig, Program
    from worker.wiring import depths

    program = Program(PredictorConfig(), cache_dir=CACHE)
    program.compile(depths(program.config))
    return program


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs `predictor` as `main` does, where JAX is loaded already; gives exit code, output, and what was said."""
    from worker import cli

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["predictor", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out, told.err

    return run
