"""`predictor snapshot` and `predictor dump`: a look into the files that a predictor of one asset keeps."""

from pathlib import Path
from typing import Annotated

import typer

from worker.commands.options import Json


def snapshot(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A snapshot, or a folder: its newest whole one.")],
    json: Json = False,
) -> None:
    """Check a snapshot and show what it holds. Exits 1 if it is damaged. Changes nothing."""
    from worker.facts import table
    from worker.keepsakes import snapshot_facts
    from worker.lines import json_line

    facts = snapshot_facts(file)
    print(json_line(facts) if json else table(facts))


def dump(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A forensic file, *_emergency_*.msgpack.")],
    json: Json = False,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="OUT.html", help="Draw the ticks before it.")] = None,
) -> None:
    """Show what a predictor saw and thought before an emergency. Exits 1 if the file is damaged."""
    from worker.exits import notice
    from worker.facts import table
    from worker.keepsakes import dump_facts, plot_dump
    from worker.lines import json_line

    facts = dump_facts(file)
    print(json_line(facts) if json else table(facts))
    if plot:
        plot_dump(file, plot)
        notice(f"drawn: {plot}")
