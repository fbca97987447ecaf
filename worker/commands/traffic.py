"""`predictor feed` and `predictor tail`: ticks in, predictions out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from worker.commands.options import Config, Json, Namespace, Redis, settings_of


def feed(
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    assets: Annotated[int, typer.Option("--assets", min=1, max=1_000_000, help="How many to make up.")] = 500,
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0.1, max=1e7, help="Ticks per second. (default: 2000; a file: as fast as it goes)"),
    ] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", min=0, help="(default: until Ctrl-C)")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed, the same values.")] = 0,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Send this file's asset,timestamp_ns,value instead.")
    ] = None,
    frames: Annotated[
        bool, typer.Option("--frames", help="Send the ticks of a partition that go together as one entry of its log.")
    ] = False,
    json: Json = False,
) -> None:
    """Send ticks to a fleet: a synthetic market at a steady rate, or a file.

    Each tick is sent once, through lost connections too; a full partition makes the feed wait. The file is checked
    whole before its first tick is sent. Prints a summary; exits 1 if the server lost ticks that could not be resent.
    """
    import asyncio

    from worker.feed import Market, feed_file, feed_market
    from worker.lines import json_line
    from worker.reach import reachable
    from worker.ticksfile import TicksFile

    settings = settings_of(redis, namespace, config)
    file = TicksFile(csv, finite=True) if csv else None
    with reachable(settings) as settings:
        if file is not None:
            summary = asyncio.run(feed_file(settings, file, rate, frames))
        else:
            market = Market(assets, rate or 2000.0, seconds, seed)
            summary = asyncio.run(feed_market(settings, market, frames))
    print(json_line(summary) if json else "\n".join(f"{name:<18}{value:>14,}" for name, value in summary.items()))
    raise typer.Exit(summary["ticks_lost"] > 0)


def tail(
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    start: Annotated[
        str,
        typer.Option(
            "--from", metavar="ID", help="latest: each asset's newest, then what follows. 0: all. $: new ones."
        ),
    ] = "latest",
    until_idle: Annotated[
        float | None,
        typer.Option("--until-idle", metavar="S", min=0.1, help="End after S seconds without one. (default: Ctrl-C)"),
    ] = None,
    json: Json = False,
) -> None:
    """Print predictions as they are made, one a line. With --json: one JSON object a line.

    Fields: partition, tick_id, asset, timestamp_ns, and every field of the result with its telemetry by name.
    """
    import asyncio
    import contextlib

    from worker.lines import json_line, table_line
    from worker.reach import reachable
    from worker.streamid import check_id
    from worker.tail import follow

    def emit(line: Mapping) -> None:
        print(json_line(line) if json else table_line(line), flush=True)

    settings = settings_of(redis, namespace, config)
    if start not in ("latest", "$"):
        check_id(start)
    with reachable(settings) as settings, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(follow(settings, start, until_idle, emit))
