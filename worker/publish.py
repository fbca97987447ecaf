"""Publishes numbers of the predictor to a running fleet by hand.

    predictor config set cusum_k=0.6 --group acme --redis URL
"""

import json
from collections.abc import Sequence
from typing import Any

from state_store import ConfigGeneration, StateStore
from worker.errors import BadInput
from worker.generations import EVERYONE, GROUPS, of_group, with_numbers
from worker.settings import Settings


def read_assignments(given: Sequence[str]) -> dict[str, Any]:
    """`name=value` as names and numbers; `name=` takes the setting's own number again."""
    numbers: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        try:
            numbers[name] = json.loads(value) if value else None
        except json.JSONDecodeError:
            equals = ""
        if not equals or isinstance(numbers[name], dict | list | str):
            raise BadInput(f"{text!r} is not NAME=NUMBER, such as cusum_k=0.6")
    return numbers


async def publish_numbers(
    store: StateStore, settings: Settings, numbers: dict[str, Any], group: str, actor: str, reason: str
) -> ConfigGeneration:
    """Makes the next generation out of the newest one and some numbers; raises BadInput, and then nothing changed."""
    known = await store.read_config()
    values = _merged(known.values, numbers, group)
    for each in ({}, *values.get(GROUPS, {}).values()):
        try:
            with_numbers(settings.config(), {**values.get(EVERYONE, {}), **each})
        except ValueError as error:
            raise BadInput(str(error)) from None
    number = await store.publish_config(known.number, values)
    if number is None:
        raise BadInput(f"somebody else published after generation {known.number}; look at it, then try again")
    event = {"event": "config_generation", "generation": number, "by": actor, "reason": reason, "numbers": numbers}
    await store.append_audit(event | ({"group": group} if group else {}))
    return ConfigGeneration(number, values)


def _merged(values: dict[str, Any], numbers: dict[str, Any], group: str) -> dict[str, Any]:
    groups = dict(values.get(GROUPS, {}))
    everyone = values.get(EVERYONE, {})
    before = of_group(values, group) if group else everyone
    after = {name: value for name, value in {**before, **numbers}.items() if value is not None}
    if not group:
        everyone = after
    elif after:
        groups[group] = after
    else:
        groups.pop(group, None)
    return {EVERYONE: everyone} | ({GROUPS: groups} if groups else {})
