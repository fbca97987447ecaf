"""`predictor hotpath canary`: other numbers of the predictor, tried on a share of the partitions."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands.options import Config, Json, Namespace, Redis, settings_of
from worker.commands.ordering import Asked, ordering

if TYPE_CHECKING:
    from worker.settings import Settings

canary = typer.Typer(no_args_is_help=True, help="Try other numbers on a share of the partitions. Off until started.")


@canary.command()
@ordering
def start(
    settings: "Settings",
    given: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=NUMBER", help="The candidate; without: the tuner proposes.")
    ] = None,
    knobs: Annotated[
        list[str] | None, typer.Option("--knob", metavar="NAME", help="Propose of these only; may be repeated.")
    ] = None,
    share: Annotated[int, typer.Option("--share", min=2, max=64, help="One in so many partitions has it.")] = 8,
    rotations: Annotated[int, typer.Option("--rotations", min=1, max=50, help="Turns of each group.")] = 2,
) -> Asked:
    """Try a candidate on one group of partitions after the other, the rest being the control.

    It becomes everyone's if the forecasts are clearly better, and nobody's if not. With numbers: one trial. Without:
    trial after trial of what the tuner proposes, until `abort`. While one is under way the tuner turns nothing else.
    """
    from worker.errors import BadInput
    from worker.publish import read_assignments

    candidate = read_assignments(given or [])
    if candidate and knobs:
        raise BadInput("give numbers, or --knob for the tuner to propose some, not both")
    unset = [name for name, value in candidate.items() if value is None]
    if unset:
        raise BadInput(f"{unset[0]} needs a number to be tried")
    asked = {"candidate": candidate, "knobs": knobs or [], "share": share, "rotations": rotations}
    return Asked("canary-start", asked)


@canary.command()
def status(redis: Redis = None, namespace: Namespace = None, config: Config = None, json: Json = False) -> None:
    """Show what is tried, how far the trial is, and how the last one ended. Changes nothing."""
    from worker.commands.hotpath import print_facts, shown
    from worker.hotpath.view import canary as facts_of
    from worker.lines import json_line

    facts = facts_of(shown(settings_of(redis, namespace, config)))
    if json:
        return print(json_line(facts))
    print_facts({name: value for name, value in facts.items() if name != "last"})
    if facts["last"]:
        print("\nlast")
        print_facts(facts["last"])


@canary.command()
@ordering
def promote(settings: "Settings") -> Asked:
    """Give the candidate's numbers to everyone now, whatever was measured. They are watched like any promotion."""
    return Asked("canary-promote")


@canary.command()
@ordering
def rollback(settings: "Settings") -> Asked:
    """Take back what was promoted and is still watched: everyone has the former numbers again."""
    return Asked("canary-rollback")


@canary.command()
@ordering
def abort(settings: "Settings") -> Asked:
    """End the trial or the watch, and propose no more: all partitions have everyone's numbers again."""
    return Asked("canary-abort")
