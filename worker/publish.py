"""Publishes numbers of the predictor and quotas of tenants to a running fleet by hand.

    predictor config set cusum_k=0.6 --group acme --redis URL
    predictor config quota acme 500 --redis URL
"""

import json
from collections.abc import Sequence
from typing import Any

from state_store import ConfigGeneration, StateStore
from state_store.client import UNHURRIED
from state_store.hotpath.store import HotpathStore
from worker.errors import BadInput
from worker.generations import EVERYONE, GROUPS, QUOTAS, of_group, with_numbers
from worker.quotas import Quotas, check_quota
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
    told = {"by": actor, "reason": reason, "numbers": numbers} | ({"group": group} if group else {})
    for each in ({}, *values.get(GROUPS, {}).values()):
        try:
            with_numbers(settings.config(), {**values.get(EVERYONE, {}), **each})
        except ValueError as error:
            raise BadInput(str(error)) from None
    return await _published(store, settings, known.number, values, told)


async def publish_quota(
    store: StateStore, settings: Settings, tenant: str, limit: int | None, actor: str, reason: str
) -> ConfigGeneration:
    """Makes the next generation with another quota of a tenant, or with none; raises BadInput."""
    known = await store.read_config()
    quotas = {name: each for name, each in known.values.get(QUOTAS, {}).items() if name != tenant}
    quotas |= {tenant: limit} if limit is not None else {}
    try:
        check_quota(tenant, limit or 0)
        Quotas.of(quotas)
    except ValueError as error:
        raise BadInput(str(error)) from None
    told = {"by": actor, "reason": reason, "tenant": tenant, "quota": limit}
    return await _published(store, settings, known.number, {**known.values, QUOTAS: quotas}, told)


async def _published(
    store: StateStore, settings: Settings, known: int, values: dict[str, Any], told: dict[str, Any]
) -> ConfigGeneration:
    number = await store.publish_config(known, values)
    if number is None:
        raise BadInput(f"somebody else published after generation {known}; look at it, then try again")
    tuner = HotpathStore(settings.redis.url, settings.redis.namespace, timeouts=UNHURRIED)
    try:
        await tuner.announce_numbers()  # a hint: workers look every now and then anyway
    finally:
        await tuner.close()
    await store.append_audit({"event": "config_generation", "generation": number, **told})
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
    kept = {name: each for name, each in values.items() if name == QUOTAS}  # a canary ends: it was tried beside others
    return {EVERYONE: everyone, **kept} | ({GROUPS: groups} if groups else {})
