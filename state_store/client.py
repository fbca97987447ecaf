"""Where the server is: the URL, read once and checked, and the connections that are made from it.

`redis-py` serves what happens a few times a second; ticks and commits go over `wire.Connection`. Neither retries by
itself: a repeated XADD is a second tick, so only those who can tell what became of the first may send again.
"""

import asyncio
import ssl
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from state_store.errors import BadUrl
from state_store.refusals import refusal, unreachable
from state_store.wire import Connection, ServerError, encode

_EXAMPLE = "write it as redis://[user:password@]host[:port][/db], rediss://... for TLS, or unix:///path/to.sock"
_TLS_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
CONTROL_CONNECTIONS_MAX = 8


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for the server before calling it unreachable."""

    connect_s: float = 2.0
    reply_s: float = 5.0
    resolve_s: float = 10.0  # For finding out what became of a commit whose connection broke.


# Who only asks holds no lease meanwhile, and would rather wait for a busy machine than ask again.
UNHURRIED = Timeouts(connect_s=5.0, reply_s=10.0)


@dataclass(frozen=True)
class Address:
    """A server's place and the right to enter."""

    scheme: str
    host: str = "localhost"
    port: int = 6379
    path: str = ""
    db: int = 0
    user: str | None = None
    password: str | None = None
    tls: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Reads a URL; raises BadUrl with what to write instead."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # Its text may quote a part of the password.
            raise BadUrl(
                f"The port in the Redis URL is not a number up to 65535: {_EXAMPLE}; "
                "in a password write / # @ as %2F %23 %40."
            ) from None
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise BadUrl(f"The Redis URL has the scheme {parts.scheme or 'none'!r}: {_EXAMPLE}.")
        options = dict(parse_qsl(parts.query))
        is_unix = parts.scheme == "unix"
        if is_unix and not parts.path.strip("/"):
            raise BadUrl(f"The Redis URL names no socket: {_EXAMPLE}.")
        db = options.pop("db", "") if is_unix else parts.path.strip("/") or options.pop("db", "")
        allowed = _TLS_OPTIONS if parts.scheme == "rediss" else set()
        if unknown := sorted(options.keys() - allowed):
            raise BadUrl(f"The Redis URL has an unknown option {unknown[0]!r}: allowed are {sorted(allowed | {'db'})}.")
        if db and not db.isdecimal():
            raise BadUrl(f"The Redis URL has the database {db!r}, which is not a number: {_EXAMPLE}.")
        return cls(
            scheme=parts.scheme,
            host=parts.hostname or "localhost",
            port=port or 6379,
            path=unquote(parts.path) if is_unix else "",
            db=int(db or 0),
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            tls=tuple(sorted(options.items())),
        )

    def __str__(self) -> str:
        """The URL with the password masked."""
        user = quote(self.user or "") + ":***@" if self.password else ""
        if self.scheme == "unix":
            return f"unix://{user}{self.path}" + (f"?db={self.db}" if self.db else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{user}{host}:{self.port}" + (f"/{self.db}" if self.db else "")

    __repr__ = __str__

    def at(self, host: str, port: int) -> "Address":
        """Another node of the same cluster, entered in the same way."""
        scheme = "redis" if self.scheme == "unix" else self.scheme
        return replace(self, scheme=scheme, host=host, port=port, path="")

    @cached_property
    def tls_context(self) -> ssl.SSLContext | None:
        """What TLS needs; None for a plain connection."""
        if self.scheme != "rediss":
            return None
        options = dict(self.tls)
        try:
            context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
            if options.get("ssl_certfile"):
                context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
        except (OSError, ssl.SSLError) as error:
            raise BadUrl(f"A certificate or key named in the Redis URL cannot be read: {error}.") from None
        if options.get("ssl_check_hostname", "true").lower() in ("false", "0", "no"):
            context.check_hostname = False
        if options.get("ssl_cert_reqs") == "none":
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    async def connect(self, timeouts: Timeouts) -> Connection:
        """Opens a connection for ticks or commits and enters; raises what `refusals` names."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeouts.connect_s):
                if self.scheme == "unix":
                    _, wire = await loop.create_unix_connection(lambda: Connection(str(self)), self.path)
                else:
                    _, wire = await loop.create_connection(
                        lambda: Connection(str(self)), self.host, self.port, ssl=self.tls_context
                    )
        except (OSError, ValueError) as error:
            raise unreachable(error, str(self)) from None
        await self._enter(wire, timeouts)
        return wire

    async def _enter(self, wire: Connection, timeouts: Timeouts) -> None:
        commands = [encode("SELECT", str(self.db))]
        if self.password is not None:
            commands.insert(0, encode("AUTH", *([self.user] if self.user else []), self.password))
        for reply in await wire.ask(b"".join(commands), len(commands), timeouts.connect_s):
            if isinstance(reply, ServerError):
                wire.abort()
                raise refusal(str(reply), str(self))

    def control(self, timeouts: Timeouts) -> Redis:
        """Makes the client for everything that is not per tick."""
        place: dict[str, Any] = {"host": self.host, "port": self.port}
        if self.scheme == "unix":
            place = {"unix_socket_path": self.path}
        if self.scheme == "rediss":
            place |= {"ssl": True, **_control_tls(dict(self.tls))}
        return Redis(
            **place,
            db=self.db,
            username=self.user,
            password=self.password,
            protocol=3,
            legacy_responses=False,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeouts.reply_s,
            socket_connect_timeout=timeouts.connect_s,
            max_connections=CONTROL_CONNECTIONS_MAX,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )


def _control_tls(options: dict[str, str]) -> dict[str, Any]:
    """Says the TLS options in the words of the control client."""
    checks_host = options.get("ssl_check_hostname", "true").lower() not in ("false", "0", "no")
    required = options.get("ssl_cert_reqs", "required")
    named = {name: value for name, value in options.items() if name.endswith(("certs", "certfile", "keyfile"))}
    return named | {"ssl_check_hostname": checks_host and required != "none", "ssl_cert_reqs": required}
