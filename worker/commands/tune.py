"""`predictor tune`: better numbers for these assets, or the certainty that the present ones are good."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.commands.options import Config, Json, Namespace, Redis, settings_of


class Tier(StrEnum):
    fast = "fast"
    deep = "deep"


class Per(StrEnum):
    pooled = "pooled"
    tenant = "tenant"
    asset = "asset"


class Metric(StrEnum):
    crps = "crps"
    rmsse = "rmsse"
    mape = "mape"


def tune(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE.csv]", help="Header asset,timestamp_ns,value.")] = None,
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    tier: Annotated[Tier, typer.Option("--tier", help="fast: 50 trials; deep: 500, more knobs.")] = Tier.fast,
    trials: Annotated[int | None, typer.Option("--trials", min=1, max=10_000, help="(default: the tier's)")] = None,
    assets: Annotated[str | None, typer.Option("--assets", metavar="A,B,…", help="Only these. (default: all)")] = None,
    per: Annotated[Per, typer.Option("--per", help="One set of numbers for all, each tenant or asset.")] = Per.pooled,
    metric: Annotated[Metric, typer.Option("--metric", help="What is compared.")] = Metric.crps,
    name: Annotated[str, typer.Option("--name", help="Of the study, kept in .predictor/studies.")] = "tune",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a study that was cut short.")] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Write over the study of that name.")] = False,
    report: Annotated[Path | None, typer.Option("--report", metavar="OUT.html", help="Draw what was found.")] = None,
    write: Annotated[Path | None, typer.Option("--write", metavar="FILE.toml", help="Take the numbers over.")] = None,
    publish: Annotated[bool, typer.Option("--publish", help="Send the numbers to the fleet.")] = False,
    watch: Annotated[
        float | None,
        typer.Option("--watch", metavar="SECONDS", min=0, help="Then look back, and undo --publish if it is worse."),
    ] = None,
    roll_back: Annotated[
        Path | None, typer.Option("--roll-back", metavar="FILE.toml", help="Undo the last --write, and nothing else.")
    ] = None,
    json: Json = False,
) -> None:
    """Search better numbers for the predictor on past ticks, and prove them on ticks that the search never saw.

    Runs on a file, or without one on the ticks that the fleet at --redis still has. Changes nothing without --write
    or --publish, and then only where the gain is clear. Ctrl-C keeps the study: --resume goes on to the same end.
    """
    from worker.errors import BadInput
    from worker.reach import reachable

    if roll_back:
        return _roll_back(roll_back, json)
    if publish and file:
        raise BadInput("--publish sends the numbers to the fleet that was tuned on: leave the file out")
    if watch is not None and not publish:
        raise BadInput("--watch looks back at what --publish sent: give both")
    if write and per is not Per.pooled:
        raise BadInput(f"--write takes one set of numbers, and --per {per} makes several")
    if resume and anew:
        raise BadInput("--resume goes on with a study and --anew writes over it: give one of them")
    settings = settings_of(redis, namespace, config or (write if write and write.exists() else None))
    wanted = [asset.strip() for asset in assets.split(",") if asset.strip()] if assets else []
    plan = {"tier": tier, "name": name, "trials": trials, "metric": metric, "per": per, "resume": resume, "anew": anew}
    plan = {key: str(value) if isinstance(value, StrEnum) else value for key, value in plan.items()}
    if file:
        outcomes, generation = _tune_file(settings, file, wanted, plan), None
    else:
        with reachable(settings) as reached:
            outcomes, generation = _tune_fleet(reached, wanted, plan, publish, watch)
    _tell(outcomes, generation, report, write, publish, json)


def _tune_file(settings: Any, file: Path, wanted: list[str], plan: dict[str, Any]) -> list[Any]:
    from worker.ticksfile import TicksFile
    from worker.tuning.past import file_history
    from worker.tuning.search import Plan, tune

    history = file_history(TicksFile(file), wanted)
    return tune(history, lambda _: settings.config(), Plan(**plan), settings.worker.cache_dir)


def _tune_fleet(
    settings: Any, wanted: list[str], plan: dict[str, Any], publishing: bool, watch_s: float | None
) -> tuple[list[Any], int | None]:
    """The search itself runs outside the event loop, which would swallow a Ctrl-C."""
    import asyncio

    from predictor_core.tuning.runs import Runner
    from worker.exits import notice
    from worker.reach import open_store
    from worker.tuning.past import fleet_history
    from worker.tuning.search import Plan, tune
    from worker.tuning.take import present_of, publish
    from worker.tuning.watch import live_text, watch

    async def read() -> tuple[Any, Any]:
        async with open_store(settings) as store:
            return await store.read_config(), await fleet_history(store, wanted)

    async def send() -> int | None:
        async with open_store(settings) as store:
            number = await publish(store, known, outcomes)
            if number is None or watch_s is None:
                return number
            notice(f"published as generation {number}, watched for {watch_s:g} s")
            lives, back = await watch(store, outcomes, known, number, watch_s, Runner(settings.worker.cache_dir))
            notice("\n".join(map(live_text, lives)))
            return number if back is None else back

    known, history = asyncio.run(read())
    plan_of_fleet, cache_dir = Plan(**plan, shapes=False), settings.worker.cache_dir
    outcomes = tune(history, lambda group: present_of(settings, known, group), plan_of_fleet, cache_dir)
    return outcomes, asyncio.run(send()) if publishing else None


def _tell(
    outcomes: list[Any], generation: int | None, report: Path | None, write: Path | None, publish: bool, json: bool
) -> None:
    from worker.exits import notice
    from worker.lines import json_line
    from worker.tuning.report import gain, write_report
    from worker.tuning.take import write_settings

    written = write_settings(outcomes[0], write) if write else {}
    if json:
        facts = [outcome.facts() for outcome in outcomes]
        print(json_line({"groups": facts, "written": written, "generation": generation}))
    for outcome in outcomes if not json else ():
        judgement = outcome.judgement
        verdict = "better numbers" if judgement.adopted else "no change"
        print(f"{outcome.group or 'all assets'}: {verdict}, {judgement.reason}")
        print(f"    gain on validation       {gain(judgement.validation)}")
        print(f"    gain on held-back ticks  {gain(judgement.held_back)}")
        for name, value in judgement.params.items():
            print(f"    {name:<24} {getattr(outcome.present, name):.6g} -> {value:.6g}")
    if report:
        write_report(report, outcomes)
        notice(f"drawn: {report}")
    if write:
        notice(f"written to {write}: {', '.join(written)}" if written else f"{write} stays as it was")
    if publish:
        notice(f"the fleet is at generation {generation}" if generation else "nothing was published")


def _roll_back(path: Path, json: bool) -> None:
    from worker.lines import json_line
    from worker.tuning.take import take_back

    changes = take_back(path)
    if json:
        return print(json_line({"written": changes}))
    print("\n".join(f"{name}: {old} -> {new}" for name, (old, new) in changes.items()) or "nothing to take back")
