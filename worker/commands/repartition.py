"""`predictor repartition`: another number of partitions for a running fleet."""

from typing import Annotated

import typer

from worker.commands.options import Config, Json, Namespace, Redis, settings_of


def repartition(
    partitions: Annotated[
        int | None, typer.Argument(metavar="[N]", min=1, max=16_384, help="How many it is to have.")
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Show how far it is. Changes nothing.")] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what earlier partitions still hold, once every reader has read it.")
    ] = False,
    discard_rejected: Annotated[
        bool, typer.Option("--discard-rejected", help="With --clean: the dead letters of earlier partitions too.")
    ] = False,
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Change the number of partitions while the fleet runs: no tick, state or order is lost.

    It closes the old partitions, waits until the workers have worked them off, copies every state to its next
    partition, and switches; ticks wait meanwhile with those who send them. Killed at any point, give it again: it
    goes on. Workers, producers and readers follow by themselves; a plain XADD into an old partition fails.

    Needs memory for all states twice, until --clean. Exits 1 if another number is under way.
    """
    import asyncio

    from worker.errors import BadInput
    from worker.facts import table
    from worker.lines import json_line
    from worker.reach import reachable
    from worker.repartition import forget_past, move, standing

    if (partitions is not None) + status + clean != 1:
        raise BadInput("give a number of partitions, or --status, or --clean")
    if discard_rejected and not clean:
        raise BadInput("--discard-rejected goes with --clean")
    with reachable(settings_of(redis, namespace, config)) as settings:
        if partitions is not None:
            facts = asyncio.run(move(settings, partitions))
        else:
            facts = asyncio.run(forget_past(settings, discard_rejected) if clean else standing(settings))
    print(json_line(facts) if json else table(facts))
