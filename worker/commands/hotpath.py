"""`predictor hotpath`: the tuner; what it does, why, and every way to stop it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.canary import canary
from worker.commands.options import Config, Json, Namespace, Redis, settings_of
from worker.commands.ordering import Asked, ordering

if TYPE_CHECKING:
    from pathlib import Path

    from worker.settings import Settings

TABLES = ("knobs", "measured", "dry_run", "canary")
KnobName = Annotated[str, typer.Argument(metavar="KNOB", help="As `status` names it, or a number of a canary.")]

hotpath = typer.Typer(no_args_is_help=True, help="The tuner: look at it, stop it, lead it back, turn it on.")
audit = typer.Typer(no_args_is_help=True, help="What it did, on disk.")
hotpath.add_typer(audit, name="audit")
hotpath.add_typer(canary, name="canary")


@hotpath.command()
def status(redis: Redis = None, namespace: Namespace = None, config: Config = None, json: Json = False) -> None:
    """Show who leads, the mode, each knob, what is measured, and what comes next. Changes nothing."""
    from worker.hotpath.view import status as facts_of
    from worker.lines import json_line

    settings = settings_of(redis, namespace, config)
    facts = facts_of(settings, shown(settings))
    if json:
        return print(json_line(facts))
    print_facts({name: value for name, value in facts.items() if name not in TABLES})
    _print_rows(facts["knobs"])
    for name in ("measured", "dry_run", "canary"):
        if facts.get(name):
            print(f"\n{name.replace('_', ' ')}")
            print_facts(facts[name])


@hotpath.command()
def explain(
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    newest: Annotated[int, typer.Option("--newest", "-n", min=1, max=1000, help="How many decisions.")] = 20,
    json: Json = False,
) -> None:
    """Show the newest decisions with their reasons, and what comes next. Changes nothing."""
    from worker.hotpath.view import decisions, model
    from worker.hotpath.view import status as facts_of
    from worker.lines import json_line

    settings = settings_of(redis, namespace, config)
    found = shown(settings, 20 * newest)
    made, following, numbers = decisions(found, newest), facts_of(settings, found)["next"], model(found)
    if json:
        return print(json_line({"decisions": made, "next": following, "model": numbers}))
    _print_rows(made)
    print(f"next: {following}")
    print(f"model: {numbers}")


@hotpath.command()
def diff(redis: Redis = None, namespace: Namespace = None, config: Config = None, json: Json = False) -> None:
    """Show each knob at its baseline, at the centre, live, and in the settings. Changes nothing."""
    from worker.hotpath.view import difference
    from worker.lines import json_line

    settings = settings_of(redis, namespace, config)
    rows = difference(settings, shown(settings))
    print(json_line({"knobs": rows})) if json else _print_rows(rows)


@hotpath.command()
@ordering
def pause(settings: "Settings") -> Asked:
    """End the probe and make no more. Rollback and pin still work; it lasts until `resume`."""
    return Asked("pause")


@hotpath.command()
@ordering
def resume(settings: "Settings") -> Asked:
    """Go on after `pause`. Refused while safe mode waits for an operator."""
    return Asked("resume")


@hotpath.command()
@ordering
def rollback(
    settings: "Settings",
    to: Annotated[int | None, typer.Option("--to", metavar="GEN", min=0, help="(default: the baseline)")] = None,
) -> Asked:
    """Go back to the baseline, or to a generation of old, in a new generation. Always possible; pins stay."""
    return Asked("rollback", {} if to is None else {"to": to})


@hotpath.command("set-baseline")
@ordering
def set_baseline(settings: "Settings") -> Asked:
    """Make the present centre the place to which rollbacks return. Refused during a probe."""
    return Asked("set-baseline")


@hotpath.command()
@ordering
def pin(
    settings: "Settings",
    knob: KnobName,
    value: Annotated[float, typer.Argument(metavar="VALUE", help="In the knob's own unit.")],
    jump: Annotated[bool, typer.Option("--jump", help="At once, not in allowed steps.")] = False,
) -> Asked:
    """Fix a knob, in the baseline too. The others are tuned on; a rollback does not undo it.

    A number of the predictor becomes everyone's, and no canary tries another.
    """
    return Asked("pin", {"knob": knob, "value": value, "jump": jump})


@hotpath.command()
@ordering
def unpin(settings: "Settings", knob: KnobName) -> Asked:
    """Tune a knob again, from where it is."""
    return Asked("unpin", {"knob": knob})


@hotpath.command("dry-run")
@ordering
def dry_run(
    settings: "Settings",
    switch: Annotated[str, typer.Argument(metavar="on|off", help="off: turns tuning on.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="With on: forget everything learned, begin anew.")] = False,
) -> Asked:
    """Observe only (on, as in every new fleet), or report what that has measured and turn tuning on (off)."""
    from worker.errors import BadInput
    from worker.hotpath.view import status as facts_of

    if switch not in ("on", "off") or (fresh and switch == "off"):
        raise BadInput("say dry-run on, dry-run on --fresh, or dry-run off")
    if switch == "on":
        return Asked("dry-run-on", fresh=fresh)
    return Asked("dry-run-off", report=facts_of(settings, shown(settings))["dry_run"])


@hotpath.command("reset-safe-mode")
@ordering
def reset_safe_mode(
    settings: "Settings", yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> Asked:
    """Leave safe mode, after showing why it is on and asking. The only way out when the circuit breaker tripped."""
    from worker.hotpath.view import status as facts_of

    held = facts_of(settings, shown(settings)).get("safe_mode")
    if held and not yes:
        _confirm(f"Safe mode is on because of {held}. Leave it?")
    return Asked("reset-safe-mode")


@hotpath.command()
@ordering
def freeze(
    settings: "Settings", off: Annotated[bool, typer.Option("--off", help="Follow again.")] = False
) -> Asked:
    """Make all workers run with their own settings, leader or not.

    For one machine alone, make a file named freeze in the tuner's directory.
    """
    return Asked("freeze", {"on": not off})


@audit.command()
def verify(
    directory: Annotated[
        str | None, typer.Option("--dir", metavar="DIR", help="(default: the tuner's directory)")
    ] = None,
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Follow the chain of hashes through the archive. Exits 1 if it is damaged, or ends before the newest link.

    It says with which file the chain begins, and whether the audit tells why it does not begin earlier.
    The newest link is the one that the fleet knows; where leaders live on several machines, collect their parts first.
    """
    from pathlib import Path

    from worker.lines import json_line

    settings = settings_of(redis, namespace, config)
    facts = _examined(settings, Path(directory) if directory else settings.hotpath.directory)
    print(json_line(facts)) if json else print_facts(facts)
    raise typer.Exit(not facts["whole"])


@audit.command()
def replay(
    directory: Annotated[
        str | None, typer.Option("--dir", metavar="DIR", help="(default: the tuner's directory)")
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Make every decision of the archive again, from what was decided on. Exits 1 at the first that differs.

    Needs no Redis: the archive holds what each leader began with and everything that it learned. Another version of
    this program may rightly decide otherwise.
    """
    from pathlib import Path

    from worker.errors import BadInput
    from worker.hotpath.replay import facts_of
    from worker.hotpath.replay import replay as replayed
    from worker.lines import json_line

    place = Path(directory) if directory else settings_of(config=config).hotpath.directory
    if not place.is_dir():
        raise BadInput(f"{place} is no directory: name the archive with --dir")
    facts = facts_of(replayed(place))
    print(json_line(facts)) if json else print_facts(facts)
    raise typer.Exit(not facts["agrees"])


def _examined(settings: "Settings", directory: "Path") -> dict[str, Any]:
    from worker.hotpath.archive import examine

    findings = examine(directory)
    loaded = shown(settings).loaded
    newest_here = not loaded.archive_head or loaded.archive_head in findings.links
    return {
        "whole": findings.whole and newest_here,
        "files": findings.files,
        "events": findings.events,
        "begins": findings.begins,
        "damaged": findings.damaged,
        "continues_elsewhere": findings.elsewhere,
        "unfinished": findings.unfinished,
        "newest_is_here": newest_here,
        "not_yet_archived": loaded.audit_length,
    }


def shown(settings: "Settings", newest: int = 0) -> Any:
    import asyncio

    from worker.hotpath import operator
    from worker.reach import reachable

    with reachable(settings) as settings:
        return asyncio.run(operator.shown(settings, newest))


def _confirm(question: str) -> None:
    import sys

    from worker.errors import BadInput

    if not sys.stdin.isatty():
        raise BadInput(f"{question} Say so with --yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


def print_facts(facts: dict[str, Any]) -> None:
    from worker.facts import table

    print(table(facts))


def _print_rows(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, header_style="dim")
    for name in rows[0] if rows else ():
        drawn.add_column(name)
    for row in rows:
        drawn.add_row(*(Text(_short(value)) for value in row.values()))
    Console().print(drawn)


def _short(value: Any) -> str:
    if value is None or value is False:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else "yes" if value is True else str(value)
