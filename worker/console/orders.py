"""What an operator may do from the page: a few orders, each with an actor and a reason, as the commands give them."""

from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from worker.errors import BadInput, OrderRefused
from worker.hotpath.operator import give
from worker.hotpath.order import TEXT_MAX, Order
from worker.letters import chosen, open_letters, send_again, throw_away
from worker.reach import open_store
from worker.settings import Settings

TUNER = ("pause", "resume", "rollback")
LETTERS = ("requeue", "purge")
WAIT_S = 15.0


async def obey(settings: Settings, asked: Mapping[str, Any]) -> str:
    """Does what is asked and says what became of it; raises BadInput or OrderRefused, and then nothing changed."""
    order, actor, reason = (_text(asked, name) for name in ("order", "actor", "reason"))
    if order in TUNER:
        return (await give(settings, Order(token_hex(8), order, actor, reason), WAIT_S))["told"]
    if order in LETTERS:
        return await _letters(settings, order, actor, reason, asked)
    raise BadInput(f"{order!r} is no order: known are {', '.join(TUNER + LETTERS)}")


async def _letters(settings: Settings, order: str, actor: str, reason: str, asked: Mapping[str, Any]) -> str:
    """Of the letters at `places`, or of all of one `kind`; the audit is told what was done."""
    places, kind = asked.get("places") or [], asked.get("kind")
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise BadInput("places: a list of PARTITION:ID")
    async with open_letters(settings) as letters:
        choice = await chosen(letters, places, kind if isinstance(kind, str) else None)
        if order == "requeue":
            answers = await send_again(letters, choice.letters)
            done, left = sum(not answer.unfit for answer in answers), [one.unfit for one in answers if one.unfit]
        else:
            done, left = await throw_away(letters, choice.letters), []
    event = {"event": f"rejected_{order}", "by": actor, "reason": reason, "letters": done}
    async with open_store(settings) as store:
        await store.append_audit(event | {"kind": kind, "places": places})
    if left and not done:
        raise OrderRefused(f"nothing was sent again: {left[0]}")
    told = [f"{order}d {done}", *choice.gone, *([f"left {len(left)}: {left[0]}"] if left else [])]
    return "; ".join(told)


def _text(asked: Mapping[str, Any], name: str) -> str:
    text = asked.get(name)
    if not isinstance(text, str) or not 0 < len(text.strip()) <= TEXT_MAX:
        raise BadInput(f"{name}: 1 to {TEXT_MAX} letters")
    return text.strip()
