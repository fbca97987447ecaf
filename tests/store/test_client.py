"""Every way in which a server cannot be had gives one line: what, where, and the remedy."""

import asyncio
import itertools
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress

import pytest
import uvloop

from state_store import (
    BadUrl,
    EmbeddedRedis,
    PredictionReader,
    RedisStateStore,
    StateStoreError,
    StoreUnavailable,
    TickProducer,
    Timeouts,
    WrongPassword,
    WrongServer,
)
from state_store.client import Address

QUICK = Timeouts(connect_s=0.5, reply_s=0.5, resolve_s=0.2)


async def complaints(url: str) -> list[StateStoreError]:
    """What the control client, the wire and the producer say about a server."""
    store = RedisStateStore(url, timeouts=QUICK)
    found = []
    for ask in (store.read_meta, lambda: store._partition(0).hold(), TickProducer(url, timeouts=QUICK).__aenter__):
        with pytest.raises(StateStoreError) as caught:
            await ask()
        found.append(caught.value)
    await store.close()
    for error in found:
        assert "\n" not in str(error) and "secret" not in str(error), error
    return found


@pytest.mark.parametrize(
    "url, shown",
    [
        ("redis://h", "redis://h:6379"),
        ("redis://user:secret@h:1/2", "redis://user:***@h:1/2"),
        ("rediss://:secret@[::1]:7", "rediss://:***@[::1]:7"),
        ("unix:///tmp/a%20b.sock?db=3", "unix:///tmp/a b.sock?db=3"),
        ("unix://u:secret@/tmp/x.sock", "unix://u:***@/tmp/x.sock"),
    ],
)
def test_the_password_is_never_shown(url, shown):
    assert str(Address.parse(url)) == shown and "secret" not in repr(Address.parse(url))


def test_a_password_may_hold_any_character_percent_encoded():
    assert Address.parse("redis://:p%40%2F%23@h").password == "p@/#"


@pytest.mark.parametrize(
    "url, named",
    [
        ("http://h", "scheme 'http'"),
        ("localhost:6379", "scheme 'localhost'"),
        ("", "scheme 'none'"),
        ("redis://h:notaport", "port"),
        ("redis://:sec/ret@h", "port"),
        ("redis://h/abc", "database 'abc'"),
        ("redis://h?max_connections=3", "unknown option 'max_connections'"),
        ("redis://h?ssl_ca_certs=x", "unknown option 'ssl_ca_certs'"),
        ("unix://", "names no socket"),
    ],
)
def test_a_bad_url_is_refused_with_an_example(url, named):
    with pytest.raises(BadUrl, match=named) as caught:
        Address.parse(url)
    assert "sec" not in str(caught.value) or "ssl" in url


@pytest.mark.parametrize("namespace", ["", "a b", "a{b}", "x" * 65, "a:b"])
def test_a_bad_namespace_is_refused(namespace):
    with pytest.raises(BadUrl, match="namespace"):
        RedisStateStore("redis://h", namespace)


def test_a_certificate_that_cannot_be_read_is_named():
    with pytest.raises(BadUrl, match="certificate or key"):
        _ = Address.parse("rediss://h?ssl_ca_certs=/no/such/file").tls_context


async def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"redis://:secret@localhost:{free.getsockname()[1]}"
        for error in await complaints(url):
            assert isinstance(error, StoreUnavailable) and "refuses connections" in str(error)


async def test_a_server_that_sends_a_waiting_read_away_is_not_available(open_redis, until):
    async with open_redis() as fleet:
        reading = asyncio.create_task(fleet.store().read(0, b"0-0", 10, 60_000))

        async def waiting():
            return [each["id"] for each in await fleet.client.client_list() if each["cmd"] == "xread"]

        (number,) = await until(waiting, bool)
        await fleet.client.execute_command("CLIENT", "UNBLOCK", number, "ERROR")  # As a primary that is demoted.
        with pytest.raises(StoreUnavailable, match="sent a waiting read away"):
            await reading


async def test_no_such_socket(tmp_path):
    for error in await complaints(f"unix://{tmp_path}/none.sock"):
        assert isinstance(error, StoreUnavailable) and "no such socket" in str(error)


async def test_nobody_answers():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for error in await complaints(f"redis://127.0.0.1:{silent.getsockname()[1]}"):
            assert isinstance(error, StoreUnavailable) and "does not answer" in str(error)
            assert "TLS" not in str(error)


async def test_tls_to_a_plain_server_and_a_database_that_is_not_there(tmp_path):
    with EmbeddedRedis(tmp_path / "redis", 0) as server:
        for error in await complaints(server.url.replace("redis://", "rediss://")):
            assert isinstance(error, StoreUnavailable) and "does not speak TLS: use redis://" in str(error)
        for error in await complaints(f"{server.url}/99"):
            assert isinstance(error, BadUrl) and "/99 has no database of that number: end the URL" in str(error)


async def test_something_else_answers():
    async def serve(reader, writer):
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    for error in await complaints(f"redis://127.0.0.1:{port}"):
        assert isinstance(error, WrongServer) and str(error).endswith(
            "does not speak the Redis protocol: check host and port in the URL."
        )
    for error in await complaints(f"rediss://127.0.0.1:{port}"):
        assert isinstance(error, WrongServer) and "does not speak TLS" in str(error)
    listener.close()
    await listener.wait_closed()


def serve_nobody_to_the_end(listener):
    """A server that is alone, and breaks every connection that speaks RESP3 soon after its first answer."""
    for n in itertools.count():
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with suppress(ConnectionError), client:
            if b"SELECT" in client.recv(1000):
                client.sendall(b"+OK\r\n")
                client.recv(1000)
                client.sendall(b"-ERR unknown command 'HELLO'\r\n")
                client.recv(1000)
                continue
            client.sendall(b"%1\r\n$5\r\nproto\r\n:3\r\n")
            broken_s = time.perf_counter() + n % 100 * 4e-6
            while time.perf_counter() < broken_s:
                pass
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_connection_that_breaks_at_any_moment_of_its_opening_is_called_lost():
    """Under uvloop, as in a worker, where about every thirtieth breaks between two writes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve_nobody_to_the_end, args=(listener,))
        serving.start()

        async def ask_again_and_again():
            store = RedisStateStore(f"redis://127.0.0.1:{listener.getsockname()[1]}")
            for _ in range(1000):
                with pytest.raises(StoreUnavailable, match="was lost"):
                    await store.read_meta()
            await store.close()

        try:
            uvloop.run(ask_again_and_again())
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join()


async def test_passwords_wanted_and_wrong(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server:
        admin = RedisStateStore(server.url)
        await admin._control.client.execute_command("CONFIG", "SET", "requirepass", "other")
        try:
            for error in await complaints(server.url):
                assert isinstance(error, WrongPassword)
                assert str(error).endswith(
                    "write it into the URL as redis://:password@host or redis://user:password@host."
                )
            for error in await complaints(server.url.replace("unix://", "unix://:secret@")):
                assert isinstance(error, WrongPassword) and ":***@" in str(error)
            url = server.url.replace("unix://", "unix://:other@")
            for ask in (TickProducer(url).__aenter__, lambda: PredictionReader(url).read(0)):
                with pytest.raises(StateStoreError, match="predictor init"):
                    await ask()
        finally:
            await admin.close()


async def test_a_host_that_has_no_name():
    store = RedisStateStore("redis://no-such-host.invalid", timeouts=QUICK)
    with pytest.raises(StoreUnavailable, match="no-such-host.invalid"):
        await store.read_meta()
    await store.close()


async def test_tls_is_checked_and_carries_everything(server, namespace, certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    async def serve(reader, writer):
        inner_reader, inner_writer = await asyncio.open_unix_connection(server.socket_url.removeprefix("unix://"))

        async def pump(source, target):
            with suppress(ConnectionError, ssl.SSLError):
                while data := await source.read(65536):
                    target.write(data)
            target.close()

        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"rediss://localhost:{listener.sockets[0].getsockname()[1]}"
    for error in await complaints(url):
        assert isinstance(error, WrongServer) and "ssl_ca_certs=FILE" in str(error)
    store = RedisStateStore(f"{url}?ssl_ca_certs={certificate[0]}", namespace)
    await store.open_fleet(1, bytes(8), {})
    lease = await store.acquire(0, "one", 60_000)
    async with TickProducer(f"{url}?ssl_cert_reqs=none", namespace) as producer:
        await producer.send("asset", 1.0)
    assert (await store.read(0, lease.cursor, 10, 1000)).assets == [b"asset"]
    await store.release(lease)
    await store.close()
    listener.close()
    await listener.wait_closed()
