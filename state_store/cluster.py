"""A Redis Cluster of embedded servers: made whole, and then changed or hurt as an operator or fate would.

For tests and for trying things out, on one machine. A shard is a primary with its replicas.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import redis

from state_store.errors import ServerNotStarted
from state_store.server import EmbeddedRedis
from state_store.slots import SLOTS

FORM_S_MAX = 30.0
BUS_OFFSET = 10_000  # Nodes talk to each other on this much higher a port.
PORTS_TRIED = 1000
KEYS_AT_ONCE = 100
MIGRATE_MS_MAX = 10_000
_POLL_S = 0.02


class EmbeddedCluster:
    """Primaries with the slots shared evenly, and `replicas` of each; use as a context manager."""

    def __init__(
        self,
        directory: str | Path,
        primaries: int = 3,
        replicas: int = 0,
        *,
        executable: str | None = None,
        node_timeout_ms: int = 1000,
        options: Mapping[str, str] | None = None,
    ):
        self.directory = Path(directory)
        self.primaries, self.replicas = primaries, replicas
        self.nodes: list[EmbeddedRedis] = []  # The primaries first, then the replicas of each in turn.
        self._executable = executable
        self._node_timeout_ms = node_timeout_ms
        self._more = options or {}  # Of every server; {port} in one stands for its own.
        self._clients: dict[EmbeddedRedis, redis.Redis] = {}  # Of those that run.
        self._frozen: dict[EmbeddedRedis, redis.Redis] = {}
        self._ids: dict[EmbeddedRedis, str] = {}
        self._processes: dict[EmbeddedRedis, int] = {}
        self._cleanup = ExitStack()

    @property
    def url(self) -> str:
        """The first node that runs; a client needs no more than one."""
        return next(node.url for node in self.nodes if node in self._clients)

    @property
    def port(self) -> int:
        """Of that node."""
        return int(self.url.rpartition(":")[2])

    def __enter__(self) -> "EmbeddedCluster":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the nodes and waits until they are a whole cluster."""
        try:
            self._start_nodes()
            self._form()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends all nodes."""
        for node in list(self._frozen):
            self.thaw(node)
        self._cleanup.close()
        self._clients.clear()

    def ask(self, node: EmbeddedRedis, *words: Any) -> Any:
        """One question to one node."""
        return cast(Any, self._clients[node].execute_command(*words))

    def owner(self, slot: int) -> EmbeddedRedis:
        """The node that has a slot, as a node that runs sees it."""
        for node, ranges in self._shares().items():
            if _holds(ranges, slot):
                return node
        raise LookupError(f"nobody has slot {slot}")

    def owners(self) -> list[EmbeddedRedis]:
        """The nodes that have slots now."""
        return [node for node, ranges in self._shares().items() if ranges]

    def _shares(self) -> dict[EmbeddedRedis, list[str]]:
        lines = _lines(self.ask(next(iter(self._clients)), "CLUSTER", "NODES"))
        named = {name: node for node, name in self._ids.items()}
        return {named[line[0]]: line[8:] for line in lines if "master" in line[2] and "fail" not in line[2]}

    def move_slot(self, slot: int, to: EmbeddedRedis, pause_s: float = 0.0) -> int:
        """Moves a slot as `redis-cli --cluster reshard` does, key by key; gives how many keys went."""
        self.open_slot(slot, to)
        return self.finish_move(slot, to, pause_s)

    def open_slot(self, slot: int, to: EmbeddedRedis) -> None:
        """Lets a slot's keys be moved; from here on neither node serves what is split between them."""
        source = self.owner(slot)
        self.ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", self._ids[source])
        self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self._ids[to])

    def finish_move(self, slot: int, to: EmbeddedRedis, pause_s: float = 0.0) -> int:
        """Moves the keys of an open slot, one by one when there is a pause between them, and closes it."""
        source, moved = self.owner(slot), 0
        while keys := self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 1 if pause_s else KEYS_AT_ONCE):
            moved += self.move_keys(source, to, keys)
            time.sleep(pause_s)
        for node in (to, source, *self._clients):
            if "master" in _myself(self.ask(node, "CLUSTER", "NODES"))[2]:
                self.ask(node, "CLUSTER", "SETSLOT", slot, "NODE", self._ids[to])
        return moved

    def keys_in(self, slot: int) -> list[bytes]:
        """The keys that a slot's owner has, a hundred at most."""
        return self.ask(self.owner(slot), "CLUSTER", "GETKEYSINSLOT", slot, KEYS_AT_ONCE)

    def move_keys(self, source: EmbeddedRedis, to: EmbeddedRedis, keys: Sequence[bytes]) -> int:
        """Moves some keys of an open slot; gives how many."""
        self.ask(source, "MIGRATE", "127.0.0.1", to.port, "", 0, MIGRATE_MS_MAX, "KEYS", *keys)
        return len(keys)

    def kill(self, node: EmbeddedRedis) -> None:
        """Ends a node as a power cut would."""
        self._clients.pop(node).close()
        os.kill(self._processes[node], signal.SIGKILL)
        node.stop()

    def freeze(self, node: EmbeddedRedis) -> None:
        """Lets a node stand still, its connections open."""
        self._frozen[node] = self._clients.pop(node)
        os.kill(self._processes[node], signal.SIGSTOP)

    def thaw(self, node: EmbeddedRedis) -> None:
        """Lets it go on."""
        os.kill(self._processes[node], signal.SIGCONT)
        self._clients[node] = self._frozen.pop(node)

    def revive(self, node: EmbeddedRedis) -> None:
        """Starts a node again that was killed; it finds its place by itself, as a replica if it was replaced."""
        node.start()
        self._greet(node)
        self._await(self._is_whole, "a whole cluster")

    def await_failover(self, dead: EmbeddedRedis, slot: int) -> EmbeddedRedis:
        """Waits until a replica has taken a dead primary's slot."""

        def taken() -> bool:
            try:
                return self.owner(slot) is not dead
            except LookupError:
                return False

        self._await(taken, f"a successor of {dead.url}")
        return self.owner(slot)

    def _start_nodes(self) -> None:
        count = self.primaries * (1 + self.replicas)
        ports = free_ports(count)
        options = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": str(self._node_timeout_ms),
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": "0",
            "repl-diskless-sync-delay": "0",
            **self._more,
        }
        self.nodes.clear()
        for port in ports:
            own = {name: value.format(port=port) for name, value in options.items()}
            place = self.directory / f"node-{port}"
            self.nodes.append(EmbeddedRedis(place, port, executable=self._executable, options=own))
        with ThreadPoolExecutor(count) as pool:
            for node in self.nodes:
                self._cleanup.callback(node.stop)
            list(pool.map(EmbeddedRedis.start, self.nodes))
        for node in self.nodes:
            self._greet(node)

    def _greet(self, node: EmbeddedRedis) -> None:
        self._processes[node] = node.process_id
        self._clients[node] = client = redis.Redis(unix_socket_path=node.socket_url.removeprefix("unix://"))
        self._cleanup.callback(client.close)

    def _form(self) -> None:
        for number, node in enumerate(self.nodes):
            self._ids[node] = _text(self.ask(node, "CLUSTER", "MYID"))
            self.ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, node in enumerate(self.nodes[: self.primaries]):
            slots = range(number * SLOTS // self.primaries, (number + 1) * SLOTS // self.primaries)
            self.ask(node, "CLUSTER", "ADDSLOTS", *slots)
        for node in self.nodes[1:]:
            self.ask(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port)
        everyone = len(self.nodes)
        self._await(lambda: all(self._known(node) == everyone for node in self.nodes), "a cluster that knows itself")
        for number, node in enumerate(self.nodes[self.primaries :]):
            self.ask(node, "CLUSTER", "REPLICATE", self._ids[self.nodes[number // self.replicas]])
        self._await(self._is_whole, "a whole cluster")

    def _known(self, node: EmbeddedRedis) -> int:
        lines = _lines(self.ask(node, "CLUSTER", "NODES"))
        return sum("handshake" not in line[2] and line[7] == "connected" for line in lines)

    def _is_whole(self) -> bool:
        infos = [_text(self.ask(node, "CLUSTER", "INFO")) for node in self.nodes]
        linked = [self.ask(node, "INFO", "replication").get("master_link_status", "") for node in self.nodes]
        followers = self.primaries * self.replicas
        return all("cluster_state:ok" in info for info in infos) and linked.count("up") == followers

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + FORM_S_MAX
        while not condition():
            if time.monotonic() > deadline:
                raise ServerNotStarted(f"{what} did not come about in {FORM_S_MAX:.0f} s: see {self.directory}.")
            time.sleep(_POLL_S)


def free_ports(count: int) -> list[int]:
    """Ports on which a node can listen, and on the one for its peers too."""
    found: list[int] = []
    with ExitStack() as held:
        for _ in range(PORTS_TRIED):
            probe, peers = held.enter_context(socket.socket()), held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            try:
                peers.bind(("127.0.0.1", port + BUS_OFFSET))
            except (OSError, OverflowError):
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise ServerNotStarted(f"No {count} ports are free together with those {BUS_OFFSET} above them.")


def _text(reply: Any) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def _lines(nodes: Any) -> list[list[str]]:
    """CLUSTER NODES, a list of words for each node."""
    return [line.split() for line in _text(nodes).splitlines()]


def _myself(nodes: Any) -> list[str]:
    return next(line for line in _lines(nodes) if "myself" in line[2])


def _holds(ranges: Sequence[str], slot: int) -> bool:
    for one in ranges:
        if one.startswith("["):
            continue  # It is on its way.
        first, _, last = one.partition("-")
        if int(first) <= slot <= int(last or first):
            return True
    return False
