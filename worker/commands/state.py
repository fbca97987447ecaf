"""`predictor state`: what is remembered of an asset; backups; and mending one state that is damaged."""

from pathlib import Path
from typing import Annotated, Any

import typer

from worker.commands.options import Config, Json, Namespace, Redis, settings_of

Asset = Annotated[str, typer.Argument(metavar="ASSET")]
Partition = Annotated[int | None, typer.Option("--partition", min=0, max=16_383, help="Only this one. (default: all)")]

state = typer.Typer(no_args_is_help=True, help="States: show one, back them up, put a backup back, mend a damaged one.")


@state.command()
def show(
    asset: Asset, redis: Redis = None, namespace: Namespace = None, config: Config = None, json: Json = False
) -> None:
    """Show an asset's stored state: layout, size, last tick, level, weights, flags. Exits 1 if it is damaged."""
    import asyncio

    from worker.reach import reachable
    from worker.states import state_facts

    with reachable(settings_of(redis, namespace, config)) as settings:
        facts = asyncio.run(state_facts(settings, asset))
    _print(facts, json)


@state.command("export")
def export_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Written whole, or left as it was.")],
    partition: Partition = None,
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Write a backup: every state, newest prediction and cursor, checksummed. The fleet may run.

    What is in it of one partition is of one moment. Ticks, predictions and dead letters are not in it.
    """
    import asyncio

    from worker.backups import export_states
    from worker.reach import reachable

    with reachable(settings_of(redis, namespace, config)) as settings:
        facts = asyncio.run(export_states(settings, file, partition))
    _print(facts, json)


@state.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="From `predictor state export`.")],
    partition: Partition = None,
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Put a backup back: all that its partitions remember becomes what it was. Makes the fleet if there is none.

    The workers must be stopped: a partition that one holds is not touched (exit 1). A fleet of another layout or of
    other partitions is refused (exit 4). Where ticks that came after the backup are still in the log, the workers
    take them again; where some of them are gone, the import is refused (exit 1).
    """
    import asyncio

    from worker.backups import import_states
    from worker.reach import reachable

    with reachable(settings_of(redis, namespace, config)) as settings:
        facts = asyncio.run(import_states(settings, file, partition))
    _print(facts, json)


@state.command()
def rebuild(
    asset: Asset,
    backup: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Begin with its state in this backup.")
    ] = None,
    cold: Annotated[bool, typer.Option("--cold", help="Forget all: it begins as if never seen.")] = False,
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Compute an asset's state again from the ticks in the log, compare on the way, and put it back.

    For an asset whose record is damaged: its ticks are dead letters until this is done. The fleet may run: the
    partition is taken from its worker for a moment. Then send what was put aside again: predictor rejected requeue.
    Exits 1 if the log does not reach back far enough, and says from where it does; nothing is changed then.
    """
    import asyncio

    from worker.errors import BadInput
    from worker.reach import reachable
    from worker.rebuild import rebuild_state

    if backup and cold:
        raise BadInput("--from and --cold exclude each other")
    with reachable(settings_of(redis, namespace, config)) as settings:
        facts = asyncio.run(rebuild_state(settings, asset, backup, cold))
    _print(facts, json)


def _print(facts: dict[str, Any], json: bool) -> None:
    from worker.facts import table
    from worker.lines import json_line

    print(json_line(facts) if json else table(facts))
