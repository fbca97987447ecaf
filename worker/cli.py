"""The command `predictor`: its subcommands, and how a failure becomes one line and an exit code.

Commands import what they need when they run, so that `predictor --help` and `predictor lag` never load JAX.
"""

import os
import sys
from typing import Annotated

import typer

from worker.commands import bench, calm, check, demo, fleet, kept, look, rejected, state, traffic
from worker.exits import alone, notice, verdict

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
app.command()(check.doctor)
app.command()(kept.snapshot)
app.command()(kept.dump)
app.add_typer(rejected.rejected, name="rejected")
app.add_typer(state.state, name="state")
app.add_typer(check.config, name="config")
app.add_typer(bench.bench, name="bench")


def main() -> None:
    """Runs one command; a mistake that a user can put right is one line on standard error, never a traceback."""
    try:
        app(prog_name="predictor")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough, as in `predictor tail | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        error = alone(error)
        code = verdict(error)
        if code is None:
            raise
        notice(str(error))
        sys.exit(code)
