"""`predictor doctor` and `predictor config`: is everything as it should be?"""

from typing import Annotated

import typer

from worker.commands.options import Config, Json, Namespace, Redis, settings_of

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


config = typer.Typer(no_args_is_help=True, help="Show or check the settings.")


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
    settings_of(config=config).config()
    print("the settings are valid")
