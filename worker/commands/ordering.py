"""Gives every order to the tuner the same options: who, why, which id, at which generation, how long to wait."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.options import Config, Json, Namespace, Redis, settings_of

if TYPE_CHECKING:
    from worker.settings import Settings

Actor = Annotated[str | None, typer.Option("--actor", metavar="WHO", help="Goes to the audit. (default: the user)")]
Reason = Annotated[str, typer.Option("--reason", metavar="WHY", help="Goes to the audit.")]
Id = Annotated[
    str | None, typer.Option("--id", metavar="ID", help="The same id is followed once, however often it is given.")
]
Expect = Annotated[
    int | None, typer.Option("--expect", metavar="GEN", min=0, help="Only if this generation is in force.")
]
Wait = Annotated[float, typer.Option("--wait", metavar="S", min=0.1, max=600, help="For the answer.")]


@dataclass(frozen=True)
class Asked:
    """What a command wants to be done; a report is printed before it is done."""

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    fresh: bool = False
    report: dict[str, Any] = field(default_factory=dict)


def ordering(command: Callable[..., Asked]) -> Callable[..., None]:
    """A command whose own part only says what is wanted; it is called with the settings and its own options."""
    common = inspect.signature(_options).parameters
    own = {name: option for name, option in inspect.signature(command).parameters.items() if name != "settings"}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        settings = settings_of(given["redis"], given["namespace"], given["config"])
        asked = command(settings, **{name: given[name] for name in own})
        if asked.report and not given["json"]:
            _report(asked.report)
        answer = _ask(settings, asked, given)
        _print(answer | ({"measured": asked.report} if asked.report else {}), given["json"])

    options = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in (*own.values(), *common.values())]
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


def _options(
    reason: Reason,
    actor: Actor = None,
    redis: Redis = None,
    namespace: Namespace = None,
    config: Config = None,
    order_id: Id = None,
    expect: Expect = None,
    wait: Wait = 30.0,
    json: Json = False,
) -> None:
    """What all orders have."""


def _ask(settings: "Settings", asked: Asked, given: dict[str, Any]) -> dict[str, Any]:
    import asyncio
    import getpass
    from secrets import token_hex

    from worker.errors import BadInput
    from worker.hotpath.operator import give
    from worker.hotpath.order import ID_BYTES_MAX, TEXT_MAX, Order
    from worker.reach import reachable

    actor, reason = given["actor"] or getpass.getuser(), given["reason"].strip()
    order = Order(given["order_id"] or token_hex(8), asked.name, actor, reason, given["expect"], asked.args)
    if not reason or max(len(reason), len(actor)) > TEXT_MAX:
        raise BadInput(f"--reason and --actor: 1 to {TEXT_MAX} letters")
    if len(order.id) > ID_BYTES_MAX:
        raise BadInput(f"--id: at most {ID_BYTES_MAX} letters")
    with reachable(settings) as settings:
        return asyncio.run(give(settings, order, given["wait"], asked.fresh)) | {"id": order.id}


def _report(measured: dict[str, Any]) -> None:
    from worker.facts import table

    print("the dry run measured (nothing was perturbed, so no gradient is known)")
    print(table(measured) + "\n")


def _print(answer: dict[str, Any], json: bool) -> None:
    from worker.lines import json_line

    print(json_line(answer) if json else f"{answer['told']} (generation {answer['generation']})")
