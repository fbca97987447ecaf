"""The command `predictor`: its subcommands, and how a failure becomes one line and an exit code.

Commands import what they need when they run, so that `predictor --help` and `predictor lag` never load JAX.
"""

import errno
import os
import sys
from typing import Annotated, Any

import typer

from worker.commands import (
    bench,
    calm,
    check,
    console,
    demo,
    fleet,
    hotpath,
    kept,
    look,
    rejected,
    repartition,
    state,
    traffic,
    tune,
)
from worker.exits import DONE, FAILED, USAGE, alone, notice, verdict
from worker.interrupts import interruptible

EPILOG = """
Exit codes:

0  done

1  a check found something, or the work failed

2  wrong usage, setting or input

3  Redis cannot be reached or refuses

4  the namespace holds no fleet, or one made with other values

Settings: flag > environment USP_SECTION__KEY > TOML file (--config or USP_CONFIG) > default. See: predictor config show
"""

app = typer.Typer(
    name="predictor",
    help="Online one-step-ahead probabilistic prediction for thousands of assets, on Redis Streams.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from worker.version import version

        print(version())
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


app.command()(demo.demo)
app.command()(fleet.redis)
app.command()(fleet.init)
app.command()(fleet.worker)
app.command()(traffic.feed)
app.command()(traffic.tail)
app.command()(calm.replay)
app.command()(calm.verify)
app.command()(look.lag)
app.command()(look.top)
app.command()(console.console)
app.command()(tune.tune)
app.command()(repartition.repartition)
app.command()(check.doctor)
app.command()(kept.snapshot)
app.command()(kept.dump)
app.add_typer(rejected.rejected, name="rejected")
app.add_typer(state.state, name="state")
app.add_typer(hotpath.hotpath, name="hotpath")
app.add_typer(check.config, name="config")
app.add_typer(bench.bench, name="bench")


def main() -> None:
    """Runs one command; a mistake that a user can put right is one line on standard error, never a traceback."""
    sys.exit(_run())


def _run() -> int:
    try:
        with interruptible():
            code = app(prog_name="predictor", standalone_mode=False)
        sys.stdout.flush()
        return code or DONE
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except (BrokenPipeError, SystemExit):  # the second is how Typer takes the first
        _give_up_output()  # the reader has seen enough, as in `predictor tail | head`
        return DONE
    except Exception as error:
        return _told(alone(error))


def _told(error: BaseException) -> int:
    """Says in a line what went wrong; an error that is ours is raised again, with its traceback."""
    code = verdict(error)
    if hasattr(error, "format_message"):  # of the command line's own library: wrong usage
        return _usage(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
        _give_up_output()
        notice(f"the output cannot be written: {error.strerror}")
        return FAILED
    if code is None:
        raise error
    notice(str(error))
    return code


def _usage(error: Any) -> int:
    if not (text := error.format_message().strip()) or "\n" in text:  # no command was named: this is the help
        error.show()
    else:
        where = error.ctx.command_path if getattr(error, "ctx", None) else "predictor"
        notice(f"{text} See: {where} --help")
    return USAGE


def _give_up_output() -> None:
    """What is left in the buffer goes nowhere, and says nothing at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
