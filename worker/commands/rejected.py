"""`predictor rejected`: the ticks that no worker took, and what to do about them."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from worker.commands.options import Config, Json, Namespace, Redis, settings_of

if TYPE_CHECKING:
    from state_store.letters import Letters
    from worker.settings import Settings

T = TypeVar("T")

KEPT_WHOLE = ("partition", "generation", "count", "id", "arrived")  # columns that are copied, or short; the others fold

Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="As `ls` shows them, or PARTITION:ID, or GENERATION.PARTITION:ID."),
]
Reason = Annotated[
    str | None, typer.Option("--reason", metavar="R", help="All with this reason, or this beginning up to its colon.")
]

rejected = typer.Typer(no_args_is_help=True, help="Dead letters: look at them, send them again, throw them away.")


@rejected.command()
def ls(
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    newest: Annotated[int, typer.Option("--newest", "-n", min=0, max=100_000, help="How many to show.")] = 10,
    json: Json = False,
) -> None:
    """Count the dead letters by partition and reason, and show the newest. Changes nothing."""
    from worker.letters import overview
    from worker.lines import json_line

    found = _ask(settings_of(redis, namespace, config), lambda letters: overview(letters, newest))
    if json:
        print(json_line(found))
    elif not found["total"]:
        print("no dead letters")
    else:
        _print_table(found["counts"])
        print()
        _print_table([row | {"arrived": _seconds(row["arrived"])} for row in found["newest"]])


@rejected.command()
def show(
    entry_id: Annotated[str, typer.Argument(metavar="ID", help="As `ls` shows it, or PARTITION:ID.")],
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Show one dead letter whole, with every field of its tick. Changes nothing."""
    from worker.facts import table
    from worker.letters import at, full
    from worker.lines import json_line

    letter = full(_ask(settings_of(redis, namespace, config), lambda letters: at(letters, entry_id)))
    print(json_line(letter) if json else table(_shown(letter)))


@rejected.command()
def requeue(
    ids: Ids = None,
    reason: Reason = None,
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Send ticks again: each is appended as a new tick and leaves the dead letters, in one step.

    Given again, or given up half-way, it sends no tick twice. A tick is taken only if it is younger than its asset's
    last one, so requeue soon after the cause is gone. Exits 1 if a letter was left because no worker could take it.
    """
    from worker.exits import notice
    from worker.letters import chosen, send_again, told
    from worker.lines import json_line

    async def run(letters: "Letters") -> tuple[list[dict], list[str]]:
        choice = await chosen(letters, ids or [], reason)
        return [told(answer) for answer in await send_again(letters, choice.letters)], choice.gone

    rows, gone = _ask(settings_of(redis, namespace, config), run)
    unfit = [row for row in rows if row["unfit"]]
    if json:
        print(json_line({"requeued": len(rows) - len(unfit), "unfit": len(unfit), "letters": rows, "gone": gone}))
    else:
        notice("\n".join([*gone, *(f"{row['partition']}:{row['id']} stays: {row['unfit']}" for row in unfit)]))
        print(f"requeued {len(rows) - len(unfit)}, left {len(unfit)}")
    raise typer.Exit(bool(unfit))


@rejected.command()
def purge(
    ids: Ids = None,
    reason: Reason = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Throw dead letters away, after asking. Their ticks stay in the log as long as its retention says."""
    from worker.exits import notice
    from worker.letters import chosen, throw_away
    from worker.lines import json_line

    async def run(letters: "Letters") -> tuple[int, list[str]]:
        choice = await chosen(letters, ids or [], reason, every)
        if choice.letters and not yes:
            _confirm(len(choice.letters))
        return await throw_away(letters, choice.letters), choice.gone

    purged, gone = _ask(settings_of(redis, namespace, config), run)
    if not json:
        notice("\n".join(gone))
    print(json_line({"purged": purged, "gone": gone}) if json else f"purged {purged}")


def _confirm(count: int) -> None:
    import sys

    from worker.errors import BadInput

    if not sys.stdin.isatty():
        raise BadInput(f"{count} dead letters would be thrown away for good: say so with --yes")
    if not typer.confirm(f"Throw {count} dead letters away for good?", err=True):
        raise typer.Exit(1)


def _ask(settings: "Settings", question: Callable[["Letters"], Awaitable[T]]) -> T:
    import asyncio

    from worker.letters import open_letters
    from worker.reach import reachable

    async def run(settings: "Settings") -> T:
        async with open_letters(settings) as letters:
            return await question(letters)

    with reachable(settings) as settings:
        return asyncio.run(run(settings))


def _print_table(rows: list[dict]) -> None:
    if not any(row["generation"] for row in rows):
        rows = [{name: value for name, value in row.items() if name != "generation"} for row in rows]
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim")
    for name in rows[0] if rows else ():
        table.add_column(name, no_wrap=name in KEPT_WHOLE, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in _shown(row).values()))
    Console().print(table)


def _seconds(moment: str | None) -> str:
    """A moment without what all of them share and nobody reads: it leaves room for the rest."""
    return f"{moment[:19]}Z" if moment else "-"


def _shown(value: Any) -> Any:
    """Names and values of a row, fit for a terminal: a tick's fields hold whatever was sent."""
    from worker.lines import printable

    if isinstance(value, dict):
        return {_shown(name): _shown(inner) for name, inner in value.items()}
    return printable(value) if isinstance(value, str) else value
