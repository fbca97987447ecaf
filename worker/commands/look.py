"""`predictor lag` and `predictor top`: a fleet seen from outside."""

from typing import Annotated

import typer

from worker.commands.options import Config, Json, Namespace, Redis, settings_of


def lag(
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    json: Json = False,
    interval: Annotated[float, typer.Option("--interval", min=0.1, max=60, help="Seconds to measure rates.")] = 1.0,
) -> None:
    """Show, per partition, its owner, cursor, backlog, oldest waiting tick's age, and rate. Changes nothing."""
    import asyncio

    from worker.lag import print_lag
    from worker.reach import reachable

    settings = settings_of(redis, namespace, config)
    with reachable(settings) as settings:
        asyncio.run(print_lag(settings, interval, json))


def top(
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    seconds: Annotated[float | None, typer.Option("--seconds", min=0.1, help="(default: until Ctrl-C)")] = None,
) -> None:
    """Watch a running fleet live: workers and their partitions, rates, latency, backlog, a few assets.

    Without a terminal it prints a line a second.
    """
    import asyncio

    from worker.reach import reachable
    from worker.top import watch_fleet

    settings = settings_of(redis, namespace, config)
    with reachable(settings) as settings:
        asyncio.run(watch_fleet(settings, seconds))
