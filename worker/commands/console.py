"""`predictor console`: the live page."""

from pathlib import Path
from typing import Annotated

import typer

from worker.commands.options import Config, Namespace, Redis, settings_of


def console(
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    host: Annotated[str, typer.Option("--host", help="Where to listen. Beyond this machine, anyone may read.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free port, reported.")] = 8765,
    operator: Annotated[
        bool, typer.Option("--operator", help="Allow orders from the page whose address, with a token, is printed.")
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="Take the operator's token from here.")
    ] = None,
) -> None:
    """Serve a live page: who holds what, what waits, any asset's forecasts, dead letters, the tuner.

    It reads while somebody looks, and changes nothing; a fleet that is not there yet, or is gone, is waited for. With
    --operator the page can also pause, resume and roll back the tuner, and send dead letters again or throw them away:
    each with an actor and a reason, in the audit. Ctrl-C ends it.
    """
    import asyncio

    from worker.console.serve import run_console, token_of
    from worker.reach import reachable

    token = token_of(operator, token_file)
    settings = settings_of(redis, namespace, config)
    with reachable(settings) as settings:
        asyncio.run(run_console(settings, host, port, token))
