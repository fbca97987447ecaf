"""`predictor demo`: the fleet in one command."""

from typing import Annotated, Any

import typer

from worker.commands.options import Config, Json, settings_of

SECONDS_WITHOUT_TERMINAL = 20.0


def demo(
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=0.5, help="(default: on a terminal until Ctrl-C, otherwise 20)"),
    ] = None,
    assets: Annotated[int, typer.Option("--assets", min=1, max=1_000_000)] = 500,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Worker processes.")] = 2,
    rate: Annotated[float, typer.Option("--rate", min=1, max=1e6, help="Ticks per second in all.")] = 2000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the synthetic market.")] = 0,
    config: Config = None,
    json: Json = False,
) -> None:
    """Run a whole fleet on this machine: embedded Redis, worker processes, a synthetic feed, a reader, a live view.

    It ends by itself after --seconds, or with Ctrl-C, and then reads back from Redis whether any tick is missing its
    prediction, has two, or has them out of order: exit 0 only if there is none. Latency is from the moment at which a
    tick was due until its prediction was read. Nothing is left behind; several demos can run at once.
    """
    import asyncio
    import sys

    from worker.demo import Options, is_clean, run_demo
    from worker.errors import WorkerError
    from worker.lines import json_line
    from worker.screen import open_screen

    settings = settings_of(config=config)
    if settings.predictor:
        settings.config()  # a wrong number is reported before anything is started; otherwise JAX stays unloaded
    if seconds is None and (json or not sys.stdout.isatty()):
        seconds = SECONDS_WITHOUT_TERMINAL
    screen = open_screen(json)
    try:
        result = asyncio.run(run_demo(settings, Options(assets, rate, seconds, workers, seed, config), screen))
    finally:
        screen.close()
    if not (json or result["ticks_sent"]):
        raise WorkerError("the demo was ended before the first tick was sent")
    print(json_line(result) if json else _table(result))
    raise typer.Exit(not is_clean(result))


def _table(result: dict[str, Any]) -> str:
    flat = {**result, **{f"latency_ms {name}": value for name, value in result["latency_ms"].items()}}
    flat.pop("latency_ms")
    return "\n".join(f"{name.replace('_', ' '):<18}{value:>14,}" for name, value in flat.items())
