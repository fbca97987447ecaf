"""Quotas of tenants in a running fleet: which of a partition's ticks are beyond what their tenant may send.

    {"quotas": {tenant: ticks in each second of arrival, in each partition}}        a generation of the configuration

A partition is where tenants wait in one line, so that is where a quota holds. A tick beyond it becomes a dead letter
and costs no more than that. It can be sent again (`predictor rejected requeue`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scheduler.partitions import check_asset
from scheduler.quota import UNLIMITED, Meter

OVER_QUOTA = "over the quota of its tenant"
QUOTAS_MAX = 256  # each is a value of a metric's label
QUOTA_MAX = 10_000_000
SECOND_NS = 10**9


@dataclass(frozen=True)
class Quotas:
    """The tenants that have one; nobody else is limited."""

    tenants: tuple[bytes, ...] = ()
    limits: tuple[int, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Quotas":
        """Reads a generation's quotas; raises ValueError."""
        if len(values) > QUOTAS_MAX:
            raise ValueError(f"{len(values)} quotas; at most {QUOTAS_MAX} tenants can have one")
        for tenant, limit in values.items():
            check_quota(tenant, limit)
        return cls(tuple(tenant.encode() for tenant in values), tuple(values.values()))


def check_quota(tenant: str, limit: Any) -> None:
    """Refuses, by ValueError, what no tenant can be called and no quota can be."""
    check_asset(tenant)
    if "/" in tenant:
        raise ValueError(f"{tenant!r} is no tenant: a tenant is what stands before the first slash of an asset's name")
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit <= QUOTA_MAX:
        raise ValueError(f"the quota of {tenant} must be a whole number from 0 to {QUOTA_MAX}, got {limit!r}")


class TenantMeter:
    """Counts the ticks of one partition's tenants, as long as its holding lasts."""

    def __init__(self) -> None:
        self._quotas = Quotas()
        self._meter = Meter()
        self._tenant_of = np.empty(0, np.int32)  # by code of the asset

    def over(self, quotas: Quotas, assets: Sequence[bytes], codes: np.ndarray, arrivals_ns: np.ndarray) -> np.ndarray:
        """The places of the ticks that are beyond a quota. `assets` has the name of each code."""
        if quotas != self._quotas:
            self._quotas, self._meter, self._tenant_of = quotas, Meter(), np.empty(0, np.int32)
        if not quotas.tenants:
            return np.empty(0, np.int64)
        known = len(self._tenant_of)
        if known < len(assets):
            place = {tenant + b"/": index for index, tenant in enumerate(quotas.tenants)}
            new = [place.get(b"".join(asset.partition(b"/")[:2]), UNLIMITED) for asset in assets[known:]]
            self._tenant_of = np.append(self._tenant_of, np.array(new, np.int32))
        refused = self._meter.over(self._tenant_of[codes], arrivals_ns // SECOND_NS, np.array(quotas.limits))
        return np.flatnonzero(refused)
