"""`predictor replay` and `predictor verify`: what the predictions should be."""

from pathlib import Path
from typing import Annotated

import typer

from worker.commands.options import Config, Json, Namespace, Redis, settings_of


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Header asset,timestamp_ns,value.")],
    config: Config = None,
    json: Json = False,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="OUT.html", help="Draw one asset instead.")] = None,
    asset: Annotated[str | None, typer.Option("--asset", help="Which to draw. (default: the file's first)")] = None,
) -> None:
    """Run a file of ticks through the predictor alone, without Redis: the calm reference for a fleet.

    Optional columns: arrival_ns (when the tick reached the log; default: its timestamp) and depth (of the graph, as
    recorded in a prediction). The JSON lines are those of `predictor tail`, with partition and tick_id null.
    Rejected ticks yield no line; how many there were and why is said at the end on standard error.
    """
    from collections import Counter

    from worker.calm import replay_file
    from worker.exits import notice
    from worker.lines import json_line, table_line
    from worker.ticksfile import TicksFile

    settings = settings_of(config=config)
    if plot:
        from worker.replayplot import plot_file

        plot_file(settings, TicksFile(file), asset, plot)
        return notice(f"drawn: {plot}")
    rejected: Counter[str] = Counter()
    for answer in replay_file(settings, TicksFile(file)):
        if isinstance(answer, dict):
            print(json_line(answer) if json else table_line(answer))
        else:
            rejected[answer.name] += 1
    if rejected:
        notice(f"rejected: {', '.join(f'{count} {reason}' for reason, count in sorted(rejected.items()))}")


def verify(
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    since: Annotated[str, typer.Option("--since", metavar="ID", help="Compare only from this tick id on.")] = "0",
    json: Json = False,
) -> None:
    """Derive every prediction and state again from the ticks in Redis, and compare the bytes. Changes nothing.

    Exits 0 only if all agree; 1 if something differs, is missing, or cannot be verified because its ticks are gone.
    """
    import asyncio
    from dataclasses import asdict

    from worker.exits import notice
    from worker.lines import json_line
    from worker.reach import open_store, reachable
    from worker.streamid import check_id
    from worker.verify import Verdict, verify_fleet

    async def run() -> Verdict:
        async with open_store(settings) as store:
            return await verify_fleet(settings, store, check_id(since))

    settings = settings_of(redis, namespace, config)
    with reachable(settings) as settings:
        verdict = asyncio.run(run())
    counts = asdict(verdict)
    if json:
        print(json_line({"agrees": verdict.agrees, **counts}))
    else:
        counts.pop("unverified")
        print("\n".join(f"{count:>12,}  {name.replace('_', ' ')}" for name, count in counts.items()))
        print("all agree" if verdict.agrees else "NOT all agree")
        notice("\n".join(verdict.unverified))
    raise typer.Exit(not verdict.agrees)
