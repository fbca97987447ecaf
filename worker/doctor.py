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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from state_store import StateStoreError, find_server
from state_store.logs import Looking
from worker.errors import SettingsError
from worker.readback import server_config, server_info, server_time_s
from worker.settings import Settings

ERROR, WARNING, OK = "error", "warning", "ok"
DISK_ERROR, DISK_WARNING = 100 << 20, 1 << 30
CLOCK_WARNING_S = 0.5
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
    """Asks the server about itself."""
    try:
        async with Looking(settings.redis.url) as looking:
            before = time.time()
            offset_s = await server_time_s(looking) - (before + time.time()) / 2
            return list(server_findings(await server_info(looking), await _config(looking), offset_s))
    except StateStoreError as error:
        return [Finding(ERROR, "redis", str(error))]


def server_findings(info: Mapping[str, str], config: Mapping[str, str], offset_s: float) -> Iterator[Finding]:
    """Judges what INFO and CONFIG GET say; an empty config means that the server does not tell."""
    found = info.get("redis_version", "0")
    old = tuple(int(part) for part in found.split(".")[:2]) < (6, 2)
    yield Finding(ERROR if old else OK, "redis version", found + (": the fleet needs 6.2 or newer" if old else ""))
    if info.get("role") != "master":
        yield Finding(ERROR, "redis role", f"{info.get('role')}: point the URL at the primary")
    if info.get("cluster_enabled", "0") != "0":
        yield Finding(ERROR, "redis cluster", "this is a cluster node: point the URL at a server that holds all keys")
    yield from _memory_findings(info)
    yield from _durability_findings(info, config)
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
    for field in ("aof_last_write_status", "rdb_last_bgsave_status"):
        if info.get(field, "ok") != "ok":
            yield Finding(ERROR, field, f"{info[field]}: the server cannot write to its disk")


async def _config(looking: Looking) -> dict[str, str]:
    """Managed servers refuse CONFIG; what it would say is then left out."""
    try:
        return await server_config(looking, "appendfsync", "timeout")
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
