"""`predictor doctor` and `predictor config`: is everything as it should be?"""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands.options import Config, Json, Namespace, Redis, settings_of

if TYPE_CHECKING:
    from state_store import ConfigGeneration

STYLES = {"error": "red", "warning": "yellow", "ok": "green"}


def doctor(redis: Redis = None, namespace: Namespace = None, config: Config = None, json: Json = False) -> None:
    """Say what is wrong or risky here: versions, flags, device, disk, the embedded server, and Redis with --redis.

    Exits 1 when anything is an error; warnings leave it 0.
    """
    import asyncio
    import os
    from dataclasses import asdict

    from worker.doctor import ERROR, examine
    from worker.lines import json_line

    settings = settings_of(redis, namespace, config)
    findings = asyncio.run(examine(settings, os.environ))
    if json:
        print(json_line({"findings": [asdict(finding) for finding in findings]}))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for finding in findings:
            table.add_row(f"[{STYLES[finding.level]}]{finding.level}[/]", finding.what, finding.text)
        Console().print(table)
    raise typer.Exit(any(finding.level == ERROR for finding in findings))


config = typer.Typer(no_args_is_help=True, help="Show or check the settings, or set numbers of a running fleet.")


@config.command()
def show(
    config: Config = None,
    json: Json = False,
    every: Annotated[bool, typer.Option("--all", help="Also the predictor's settings that were not given.")] = False,
) -> None:
    """Print the settings in force, as TOML that --config takes; passwords are masked."""
    from worker.lines import json_line
    from worker.toml import toml_text

    settings = settings_of(config=config)
    shown = settings.shown()
    if every:
        from dataclasses import asdict

        shown["predictor"] = asdict(settings.config())
    print(json_line(shown) if json else toml_text(shown))


@config.command()
def check(config: Config = None) -> None:
    """Check the environment and the file: exit 0 if a worker would take them, else 2 and one line a mistake."""
    from state_store.client import Address

    settings = settings_of(config=config)
    settings.config()
    if settings.redis.url:
        Address.parse(settings.redis.url)
    print("the settings are valid")


@config.command("set")
def set_(
    given: Annotated[list[str], typer.Argument(metavar="NAME=NUMBER...", help="NAME= takes the setting's own again.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the generation.")],
    group: Annotated[str, typer.Option("--group", metavar="NAME", help="Only for this tenant or asset.")] = "",
    actor: Annotated[str, typer.Option("--actor", help="Who; by default the user of this shell.")] = "",
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Give a running fleet other numbers of the predictor, as a new generation: no restart, no new compilation.

    Workers take it over within half a second, between two micro-batches. Predictions record what made them, so
    `verify` agrees across the change. Give the --config that the workers have.
    """
    import asyncio
    import getpass
    from dataclasses import asdict

    from worker.lines import json_line
    from worker.publish import publish_numbers, read_assignments
    from worker.reach import open_store

    settings = settings_of(redis, namespace, config)

    async def run() -> "ConfigGeneration":
        async with open_store(settings) as store:
            await store.read_meta()  # a fleet must be there
            numbers = read_assignments(given)
            return await publish_numbers(store, settings, numbers, group, actor or getpass.getuser(), reason)

    made = asyncio.run(run())
    print(json_line(asdict(made)) if json else f"generation {made.number} is published")


@config.command()
def quota(
    tenant: Annotated[str, typer.Argument(help="What stands before the first slash of its assets' names.")],
    ticks: Annotated[str, typer.Argument(metavar="TICKS", help="A second in each partition, or `none`.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the generation.")],
    actor: Annotated[str, typer.Option("--actor", help="Who; by default the user of this shell.")] = "",
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Limit a tenant to so many ticks in each second, in each partition, as a new generation: no restart.

    What is beyond becomes a dead letter, "over the quota of its tenant", and can be sent again with `predictor
    rejected requeue`. `none` takes the quota away; `predictor config generations` shows those in force.
    """
    import asyncio
    import getpass
    from dataclasses import asdict

    from worker.errors import BadInput
    from worker.lines import json_line
    from worker.publish import publish_quota
    from worker.reach import open_store

    settings = settings_of(redis, namespace, config)
    if ticks != "none" and not ticks.isdecimal():
        raise BadInput(f"{ticks!r} is no quota: give a whole number of ticks, or none")
    limit = None if ticks == "none" else int(ticks)

    async def run() -> "ConfigGeneration":
        async with open_store(settings) as store:
            await store.read_meta()  # a fleet must be there
            return await publish_quota(store, settings, tenant, limit, actor or getpass.getuser(), reason)

    made = asyncio.run(run())
    print(json_line(asdict(made)) if json else f"generation {made.number} is published")


@config.command()
def generations(redis: Redis = None, namespace: Namespace = None, config: Config = None, json: Json = False) -> None:
    """List the generations of numbers that were published to a fleet, the oldest first."""
    import asyncio
    from dataclasses import asdict

    from worker.lines import json_line
    from worker.reach import open_store

    async def run() -> "list[ConfigGeneration]":
        async with open_store(settings_of(redis, namespace, config)) as store:
            await store.read_meta()
            return await store.config_history()

    history = asyncio.run(run())
    if json:
        return print(json_line({"generations": [asdict(each) for each in history]}))
    for each in history:
        print(f"{each.number:>6}  {json_line(each.values)}")
    if not history:
        print("none was published: the settings hold")
