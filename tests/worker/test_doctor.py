"""Judgements of the doctor, each from facts."""

import asyncio

import pytest

from state_store import EmbeddedRedis
from worker.doctor import (
    ERROR,
    OK,
    WARNING,
    build_findings,
    cluster_findings,
    device_findings,
    disk_findings,
    flag_findings,
    package_findings,
    server_findings,
    store_findings,
)
from worker.settings import Settings

GOOD = {
    "redis_version": "7.2.4",
    "role": "master",
    "cluster_enabled": "0",
    "maxmemory": "1000",
    "used_memory": "100",
    "maxmemory_policy": "noeviction",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
}


def levels(findings):
    return {finding.what: finding.level for finding in findings}


def test_this_installation_is_sound():
    assert set(levels(package_findings()).values()) == {OK}


def test_a_good_server_has_nothing_wrong():
    assert set(levels(server_findings(GOOD, {"timeout": "0"}, 0.01)).values()) == {OK}


def test_workers_of_several_builds_are_found_and_counted():
    assert levels(build_findings(["a", "a"])) == {"workers": OK}
    (found,) = build_findings(["b", "a", "b"])
    assert (found.level, found.counts) == (WARNING, {"a": 1, "b": 2})
    assert not list(build_findings([]))


@pytest.mark.parametrize(
    ("info", "config", "what"),
    [
        ({"connected_slaves": "2"}, {"min-replicas-to-write": "0"}, "replicas"),
        ({}, {"client-output-buffer-limit": "normal 1048576 0 0 slave 0 0 0 pubsub 0 0 0"}, "reply buffer"),
    ],
)
def test_a_limit_that_will_hurt_is_found(info, config, what):
    assert levels(server_findings(GOOD | info, config, 0.0))[what] == WARNING
    calm = {"min-replicas-to-write": "1", "client-output-buffer-limit": "normal 0 0 0 slave 1 1 1 pubsub 1 1 1"}
    assert what not in levels(server_findings(GOOD | info, calm, 0.0))


@pytest.mark.parametrize(
    ("change", "what", "level"),
    [
        ({"redis_version": "6.0.16"}, "redis version", ERROR),
        ({"role": "slave"}, "redis role", ERROR),
        ({"maxmemory_policy": "allkeys-lru"}, "eviction policy", ERROR),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": "0"}, "eviction policy", WARNING),
        ({"maxmemory": "0"}, "memory", WARNING),
        ({"used_memory": "900"}, "memory", WARNING),
        ({"aof_enabled": "0"}, "append-only file", WARNING),
        ({"aof_last_write_status": "err"}, "aof_last_write_status", ERROR),
    ],
)
def test_a_risk_in_the_server_is_found(change, what, level):
    assert levels(server_findings({**GOOD, **change}, {}, 0.0))[what] == level


def test_a_clock_far_from_the_servers_is_a_warning():
    assert levels(server_findings(GOOD, {}, -2.0))["clock"] == WARNING


def test_a_cluster_that_stops_as_a_whole_is_a_warning():
    stops = {"cluster-require-full-coverage": "yes"}
    assert levels(server_findings(GOOD | {"cluster_enabled": "1"}, stops, 0.0))["full coverage"] == WARNING
    assert "full coverage" not in levels(server_findings(GOOD, stops, 0.0))


@pytest.mark.parametrize(
    ("info", "homes", "state", "spread"),
    [
        ("cluster_state:ok\r\n", "aabbc", OK, OK),
        ("cluster_state:ok\r\n", "aaaab", OK, WARNING),
        ("cluster_state:fail\r\ncluster_slots_ok:7\r\n", "abc", ERROR, OK),
    ],
)
def test_a_broken_or_uneven_cluster_is_found(info, homes, state, spread):
    found = list(cluster_findings(info, list("abc"), list(homes)))
    assert levels(found) == {"redis cluster": state, "partitions by node": spread}
    assert found[1].counts == {node: homes.count(node) for node in "abc"}


def test_a_server_that_closes_idle_connections_is_a_warning():
    assert levels(server_findings(GOOD, {"timeout": "300"}, 0.0))["redis timeout"] == WARNING


@pytest.mark.parametrize(
    ("environ", "what", "level"),
    [
        ({"XLA_FLAGS": "--xla_cpu_use_cross_replica_callbacks=true"}, "XLA_FLAGS", ERROR),
        ({"XLA_FLAGS": "--xla_gpu_deterministic_reductions"}, "XLA_FLAGS", ERROR),
        ({"JAX_DETERMINISTIC_REDUCTIONS": "1"}, "JAX_DETERMINISTIC_REDUCTIONS", WARNING),
        ({"TF_FORCE_GPU_ALLOW_GROWTH": "true"}, "TF_FORCE_GPU_ALLOW_GROWTH", WARNING),
        ({"XLA_PYTHON_CLIENT_MEM_FRACTION": ".5"}, "XLA_PYTHON_CLIENT_MEM_FRACTION", WARNING),
        (
            {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".5", "XLA_CLIENT_MEM_FRACTION": ".5"},
            "XLA_CLIENT_MEM_FRACTION",
            ERROR,
        ),
        ({"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"}, "XLA_PYTHON_CLIENT_ALLOCATOR", WARNING),
    ],
)
def test_a_flag_that_hurts_or_does_nothing_is_found(environ, what, level):
    assert levels(flag_findings(environ)) == {what: level}


def test_flags_that_work_are_left_alone():
    assert not list(flag_findings({"XLA_FLAGS": "--xla_cpu_enable_fast_math=false", "XLA_CLIENT_MEM_FRACTION": ".5"}))


def test_a_jax_setting_that_does_not_exist_is_a_warning():
    found = levels(device_findings({"devices": ["cpu: x"], "unknown": ["JAX_FOO"]}))
    assert found == {"device": OK, "JAX_FOO": WARNING}


def test_a_full_disk_is_an_error(tmp_path):
    assert levels(disk_findings(tmp_path, 1 << 20, True))["disk"] == ERROR
    assert levels(disk_findings(tmp_path, 1 << 40, True))["disk"] == OK


def test_a_real_server_is_looked_at(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        found = levels(asyncio.run(store_findings(Settings(redis={"url": server.url}))))
    assert found["eviction policy"] == found["append-only file"] == found["clock"] == OK
    assert ERROR not in found.values()
