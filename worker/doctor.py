"""What is wrong or risky here: findings, each with its remedy, from facts that were looked up before.

The judgements are pure functions of facts, so each is tested without the thing it judges.
"""

import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from state_store import StateStoreError, find_server
from state_store.client import Address
from state_store.keys import Keys
from state_store.logs import Looking
from worker.errors import SettingsError
from worker.reach import open_store
from worker.readback import server_config, server_info, server_time_s
from worker.settings import Settings

ERROR, WARNING, OK = "error", "warning", "ok"
DISK_ERROR, DISK_WARNING = 100 << 20, 1 << 30
CLOCK_WARNING_S = 0.5
PARTITIONS = 16  # of a fleet made with defaults
UNEVEN = 1.5  # times the mean
REPLY_BYTES = 64 << 20  # a client of the fleet never has more on its way
LIMITS = (
    *("appendfsync", "timeout", "cluster-require-full-coverage"),
    *("min-replicas-to-write", "client-output-buffer-limit"),
)
PACKAGES = ("jax", "jaxlib", "equinox", "ott-jax", "numpy", "redis", "hiredis", "msgpack", "uvloop")
XLA_FLAGS_GONE = {
    "xla_cpu_use_cross_replica_callbacks": "does not exist: JAX ends the process; remove it",
    "xla_gpu_deterministic_reductions": "was removed from XLA: use --xla_gpu_exclude_nondeterministic_ops=true",
}
VARIABLES_WITHOUT_EFFECT = {
    "JAX_DETERMINISTIC_REDUCTIONS": "results here are the same bits by construction; remove it",
    "TF_FORCE_GPU_ALLOW_GROWTH": "JAX ignores it: use XLA_PYTHON_CLIENT_PREALLOCATE=false",
}
OLD_FRACTION, NEW_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"
LOOK_AT_JAX = """
import json, os, jax
known = {name.lower() for name in jax.config.values}
unknown = [name for name in os.environ if name.startswith("JAX_") and name.lower() not in known]
print(json.dumps({"devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()], "unknown": unknown}))
"""
LOOK_AT_JAX_MAX_S = 120


@dataclass(frozen=True)
class Finding:
    level: str
    what: str
    text: str
    counts: Mapping[str, int] = field(default_factory=dict)  # the same in numbers, for programs


async def examine(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Looks at everything; the slow parts at the same time."""
    device = asyncio.to_thread(_device_facts)
    store = store_findings(settings) if settings.redis.url else _no_store()
    store_found, device_found = await asyncio.gather(store, device)
    flags = [*flag_findings(environ), *(Finding(ERROR, "device", text) for text in device_found.get("errors", ()))]
    return [
        *package_findings(),
        *flags,
        *device_findings(device_found),
        *config_findings(settings),
        *disk_findings(Path.cwd(), shutil.disk_usage(Path.cwd()).free, os.access(Path.cwd(), os.W_OK)),
        *embedded_findings(),
        *store_found,
    ]


def package_findings() -> Iterator[Finding]:
    """Python and the packages whose versions matter."""
    known = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding(OK if known else ERROR, "python", platform.python_version() + ("" if known else ": use 3.11 to 3.13"))
    for name in PACKAGES:
        try:
            yield Finding(OK, name, version(name))
        except PackageNotFoundError:
            yield Finding(ERROR, name, f"not installed: pip install {name}")


def flag_findings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Flags that end the process, contradict each other, or do nothing."""
    given = set(re.findall(r"--(\w+)", environ.get("XLA_FLAGS", "")))
    for name in sorted(given & XLA_FLAGS_GONE.keys()):
        yield Finding(ERROR, "XLA_FLAGS", f"--{name} {XLA_FLAGS_GONE[name]}")
    for name in sorted(environ.keys() & VARIABLES_WITHOUT_EFFECT.keys()):
        yield Finding(WARNING, name, f"does nothing: {VARIABLES_WITHOUT_EFFECT[name]}")
    if OLD_FRACTION in environ and NEW_FRACTION in environ:
        yield Finding(ERROR, NEW_FRACTION, f"{OLD_FRACTION} is set too and JAX refuses both: keep only {NEW_FRACTION}")
    elif OLD_FRACTION in environ:
        yield Finding(WARNING, OLD_FRACTION, f"is the old name: use {NEW_FRACTION}")
    if environ.get("XLA_PYTHON_CLIENT_ALLOCATOR") == "platform":
        text = "'platform' is very slow: leave it out, or use cuda_async"
        yield Finding(WARNING, "XLA_PYTHON_CLIENT_ALLOCATOR", text)


def device_findings(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """What JAX found, in a process of its own: a bad flag ends that one, not this."""
    if facts.get("devices"):
        yield Finding(OK, "device", ", ".join(facts["devices"]))
    for name in facts.get("unknown", ()):
        if name not in VARIABLES_WITHOUT_EFFECT:
            yield Finding(WARNING, name, "is not a setting of this JAX and does nothing: correct or remove it")


def config_findings(settings: Settings) -> Iterator[Finding]:
    try:
        settings.config()
        yield Finding(OK, "settings", "valid")
    except SettingsError as error:
        yield Finding(ERROR, "settings", str(error))


def disk_findings(place: Path, free: int, writable: bool) -> Iterator[Finding]:
    level = ERROR if free < DISK_ERROR else WARNING if free < DISK_WARNING else OK
    text = f"{free / (1 << 30):.1f} GiB free at {place}"
    yield Finding(level, "disk", text + ("" if level == OK else ": the embedded Redis and the caches need more"))
    if not writable:
        yield Finding(ERROR, "disk", f"{place} is not writable: .predictor/ cannot be kept there")


def embedded_findings() -> Iterator[Finding]:
    try:
        yield Finding(OK, "embedded server", str(find_server()))
    except StateStoreError as error:
        yield Finding(WARNING, "embedded server", str(error))


async def store_findings(settings: Settings) -> list[Finding]:
    """Asks the server about itself; each node that has keys, where there are several."""
    try:
        async with Looking(settings.redis.url) as looking:
            nodes = list(await looking.route.primaries())
            if not await looking.route.is_cluster():
                return [*await _node_findings(settings.redis.url), *await _worker_findings(settings)]
            keys, partitions = await _partitions(looking, settings.redis.namespace)
            homes = [await looking.route.find(keys.of(partition).ticks) for partition in range(partitions)]
            whole = (await looking.ask("CLUSTER", "INFO")).decode()
            found = list(cluster_findings(whole, [str(node) for node in nodes], list(map(str, homes))))
        for node in nodes:
            for finding in await _node_findings(node):
                found.append(replace(finding, what=f"{finding.what} ({node.host}:{node.port})"))
        return [*found, *await _worker_findings(settings)]
    except StateStoreError as error:
        return [Finding(ERROR, "redis", str(error))]


async def _worker_findings(settings: Settings) -> list[Finding]:
    async with open_store(settings) as store:
        live = [each.info for each in await store.workers() if each.age_ms < settings.worker.lease_ms]
    return list(build_findings([str(info.get("build", "")) for info in live]))


def build_findings(builds: Sequence[str]) -> Iterator[Finding]:
    """Of live workers: bits are only the same where version, libraries and kind of processor are."""
    counts = {build: builds.count(build) for build in sorted(set(builds))}
    if len(counts) > 1:
        text = "bits may differ where partitions move; finish the update, or take one kind of processor"
        yield Finding(WARNING, "workers", f"{len(counts)} builds at work: {text}", counts)
    elif counts:
        yield Finding(OK, "workers", f"{len(builds)} alive, all of one build", counts)


async def _node_findings(place: str | Address) -> list[Finding]:
    async with Looking(place) as looking:
        before = time.time()
        offset_s = await server_time_s(looking) - (before + time.time()) / 2
        return list(server_findings(await server_info(looking), await _config(looking), offset_s))


async def _partitions(looking: Looking, namespace: str) -> tuple[Keys, int]:
    """The keys and the number of partitions of the fleet; of one made with defaults where there is none."""
    partitions, generation = await looking.ask("HMGET", Keys(namespace).meta, "partitions", "generation")
    return Keys(namespace, int(generation or 0)), int(partitions or PARTITIONS)


def cluster_findings(info: str, nodes: Sequence[str], homes: Sequence[str]) -> Iterator[Finding]:
    """Judges a cluster's own view and how evenly partitions lie; `homes` has the node of each."""
    stated = dict(line.split(":", 1) for line in info.split() if ":" in line)
    if stated.get("cluster_state") == "ok":
        yield Finding(OK, "redis cluster", f"{len(nodes)} nodes with slots, state ok")
    else:
        text = f"state {stated.get('cluster_state')}, {stated.get('cluster_slots_ok')} slots served: see CLUSTER NODES"
        yield Finding(ERROR, "redis cluster", text)
    counts = {node: homes.count(node) for node in nodes}
    text = ", ".join(f"{node.rpartition('@')[2].removeprefix('redis://')} {count}" for node, count in counts.items())
    uneven = max(counts.values()) > UNEVEN * len(homes) / len(nodes)
    remedy = ": make the fleet with more partitions, or move slots" if uneven else ""
    yield Finding(WARNING if uneven else OK, "partitions by node", text + remedy, counts)


def server_findings(info: Mapping[str, str], config: Mapping[str, str], offset_s: float) -> Iterator[Finding]:
    """Judges what INFO and CONFIG GET say; an empty config means that the server does not tell."""
    found = info.get("redis_version", "0")
    old = tuple(int(part) for part in found.split(".")[:2]) < (6, 2)
    yield Finding(ERROR if old else OK, "redis version", found + (": the fleet needs 6.2 or newer" if old else ""))
    if info.get("role") != "master":
        yield Finding(ERROR, "redis role", f"{info.get('role')}: point the URL at the primary")
    yield from _memory_findings(info)
    yield from _durability_findings(info, config)
    if info.get("cluster_enabled", "0") != "0" and config.get("cluster-require-full-coverage") == "yes":
        text = "when one shard is down all others stop too: CONFIG SET cluster-require-full-coverage no"
        yield Finding(WARNING, "full coverage", text)
    yield from _limit_findings(info, config)
    if config.get("timeout", "0") != "0":
        yield Finding(WARNING, "redis timeout", f"closes idle connections after {config['timeout']} s: set timeout 0")
    level = WARNING if abs(offset_s) > CLOCK_WARNING_S else OK
    text = f"{offset_s * 1000:+.0f} ms from this machine's"
    yield Finding(level, "clock", text + (": ticks stamped here may be refused as future ones" if level != OK else ""))


def _memory_findings(info: Mapping[str, str]) -> Iterator[Finding]:
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    policy = info.get("maxmemory_policy", "")
    if policy == "noeviction":
        yield Finding(OK, "eviction policy", "noeviction")
    else:
        text = f"{policy} deletes states and ticks when memory is full: CONFIG SET maxmemory-policy noeviction"
        yield Finding(ERROR if limit else WARNING, "eviction policy", text)
    if limit and used > 0.8 * limit:
        yield Finding(WARNING, "memory", f"{100 * used / limit:.0f} % of maxmemory used: raise it or keep fewer ticks")
    elif not limit:
        yield Finding(WARNING, "memory", "no maxmemory, so the kernel may kill the server: set it below what there is")
    else:
        yield Finding(OK, "memory", f"{100 * used / limit:.0f} % of maxmemory used")


def _durability_findings(info: Mapping[str, str], config: Mapping[str, str]) -> Iterator[Finding]:
    if info.get("aof_enabled", "0") != "0":
        yield Finding(OK, "append-only file", f"on, fsync {config.get('appendfsync', 'unknown')}")
    else:
        yield Finding(WARNING, "append-only file", "off, a crash loses what the last snapshot lacks: appendonly yes")
    for status in ("aof_last_write_status", "rdb_last_bgsave_status"):
        if info.get(status, "ok") != "ok":
            yield Finding(ERROR, status, f"{info[status]}: the server cannot write to its disk")


def _limit_findings(info: Mapping[str, str], config: Mapping[str, str]) -> Iterator[Finding]:
    replicas = int(info.get("connected_slaves", 0))
    if replicas and config.get("min-replicas-to-write") == "0":
        text = f"{replicas} connected, but writes do not need one: CONFIG SET min-replicas-to-write 1"
        yield Finding(WARNING, "replicas", text)
    limits = config.get("client-output-buffer-limit", "").split()
    hard = dict(zip(limits[::4], limits[1::4], strict=False))
    if 0 < int(hard.get("normal", 0)) < REPLY_BYTES:
        text = f"{hard['normal']} bytes end a client: CONFIG SET client-output-buffer-limit 'normal 0 0 0'"
        yield Finding(WARNING, "reply buffer", text)


async def _config(looking: Looking) -> dict[str, str]:
    """Managed servers refuse CONFIG; what it would say is then left out."""
    try:
        return await server_config(looking, *LIMITS)
    except StateStoreError:
        return {}


async def _no_store() -> list[Finding]:
    return [Finding(OK, "redis", "no URL given: the embedded server would be used")]


def _device_facts() -> dict[str, Any]:
    try:
        child = subprocess.run(
            [sys.executable, "-c", LOOK_AT_JAX], capture_output=True, text=True, timeout=LOOK_AT_JAX_MAX_S
        )
    except subprocess.TimeoutExpired:
        return {"errors": [f"JAX did not find its device in {LOOK_AT_JAX_MAX_S} s: is another process holding it?"]}
    if child.returncode == 0:
        return json.loads(child.stdout.splitlines()[-1])
    said = [line for line in child.stderr.splitlines() if line.strip()]
    why = next((line for line in said if "nknown flag" in line), said[-1] if said else f"exit {child.returncode}")
    return {"errors": [f"JAX does not start here: {why.partition('] ')[2] or why}"]}
