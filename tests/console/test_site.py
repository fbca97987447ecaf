"""What the console answers, and whom: over sockets, with a real Redis behind it and no worker."""

import asyncio
import contextlib
import http.client
import json
import re
import shlex
import socket
import urllib.parse
from pathlib import Path

import pytest

from state_store import RedisStateStore
from state_store.logs import Looking
from worker.console.board import ASSETS_MAX, VIEWERS_MAX, Board
from worker.console.fleet import Fleet
from worker.console.site import SAFE, Site
from worker.errors import BadInput
from worker.http import BODY_BYTES_MAX, listening
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
FIELDS = {"quantile_levels": [0.05, 0.5, 0.95], "telemetry": ["holder_exponent", "weights_a"]}


@pytest.fixture(scope="module")
def operator(server, commands):
    """Address and token of a console for a fleet that nobody serves."""

    async def make() -> None:
        store = RedisStateStore(server.url)
        await store.open_fleet(4, bytes(8), FIELDS)
        await store.close()

    asyncio.run(make())
    address, token = commands.console("operator", "--operator").split("#operator=")
    return address, token


def asked(address, path, method="GET", body=None, **headers):
    """Status, headers and body of an answer; names of headers with _ for -."""
    place = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/", "/main.js", "/console.css", "/icon.svg", "/about", "/assets", "/rejected"])
def test_every_answer_forbids_what_the_page_does_not_need(operator, path):
    status, headers, body = asked(operator[0], path)
    assert status == 200 and body
    assert headers.items() >= SAFE.items()
    assert "script-src 'self'" in SAFE["Content-Security-Policy"] and "unsafe" not in SAFE["Content-Security-Policy"]


def test_a_page_that_is_known_is_not_sent_again(operator):
    _, headers, _ = asked(operator[0], "/main.js")
    assert asked(operator[0], "/main.js", if_none_match=headers["ETag"])[0] == 304
    assert asked(operator[0], "/main.js", method="HEAD")[2] == b""


@pytest.mark.parametrize(
    ("status", "path", "method", "headers"),
    [
        (404, "/nothing", "GET", {}),
        (404, "/../site.py", "GET", {}),
        (404, "/%2e%2e/site.py", "GET", {}),
        (405, "/about", "POST", {}),
        (405, "/orders", "GET", {}),
        (421, "/about", "GET", {"Host": "elsewhere.example"}),
        (421, "/events", "GET", {"Host": "elsewhere.example:8765"}),
        (413, "/orders", "POST", {"Content-Length": str(BODY_BYTES_MAX + 1)}),
        (400, "/orders", "POST", {"Content-Length": "many"}),
    ],
)
def test_what_is_not_served_is_said_in_a_status(operator, status, path, method, headers):
    assert asked(operator[0], path, method, **headers)[0] == status


@pytest.mark.parametrize("noise", [b"\r\n", b"\x00\xff" * 50 + b"\r\n", b"A" * 100_000, b"GET / HTTP/1.1\r\n" * 300])
def test_noise_does_not_end_the_console(operator, noise):
    place = urllib.parse.urlsplit(operator[0])
    with socket.create_connection((place.hostname, place.port)) as connection:
        connection.sendall(noise)
    assert asked(operator[0], "/about")[0] == 200


def order(operator, token=None, **more):
    address, right = operator
    headers = {"X_Operator_Token": token if token is not None else right, "Origin": address.rstrip("/")} | more
    body = json.dumps({"order": "purge", "actor": "ana", "reason": "a test", "kind": "late"})
    status, _, answer = asked(address, "/orders", "POST", body, **headers)
    return status, json.loads(answer)


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": ""},
        {"token": "x" * 32},
        {"Origin": ""},
        {"Origin": "http://elsewhere.example"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
def test_an_order_needs_the_token_and_the_page_itself(operator, wrong):
    status, told = order(operator, **wrong)
    assert (status, told["error"].split(":")[0]) == (403, "only an operator may do this")


def test_an_order_is_audited_with_its_actor_and_reason(operator, server):
    async def audited() -> dict:
        async with Looking(server.url) as looking:
            (_, fields), *_ = await looking.ask("XREVRANGE", "usp:audit", "+", "-", "COUNT", "1")
            return json.loads(fields[1])

    assert order(operator) == (200, {"told": "purged 0"})
    event = asyncio.run(audited())
    assert (event["event"], event["by"], event["reason"], event["letters"]) == ("rejected_purge", "ana", "a test", 0)


@pytest.mark.parametrize(
    "wrong", [{"order": "drop"}, {"actor": ""}, {"reason": " "}, {"reason": "x" * 501}, {"places": [1]}, {"kind": None}]
)
def test_an_order_that_is_not_clear_is_refused_in_a_line(operator, wrong):
    address, token = operator
    body = json.dumps({"order": "purge", "actor": "ana", "reason": "a test", "kind": "late"} | wrong)
    headers = {"X_Operator_Token": token, "Origin": address.rstrip("/")}
    status, _, answer = asked(address, "/orders", "POST", body, **headers)
    assert status == 409 and len(json.loads(answer)["error"].splitlines()) == 1


@pytest.mark.parametrize("body", ["", "[]", "{", "[" * 60_000])
def test_an_order_that_is_no_object_is_a_bad_request(operator, body):
    address, token = operator
    assert asked(address, "/orders", "POST", body, X_Operator_Token=token, Origin=address.rstrip("/"))[0] == 400


def test_a_reader_s_console_has_no_token_that_would_do(server, commands):
    address = commands.console("reader")
    assert json.loads(asked(address, "/about")[2])["operator"] is False
    assert order((address, ""))[0] == 403


def test_a_hundred_thousand_assets_are_searched_without_loading_them(operator, server):
    async def fill() -> None:
        async with Looking(server.url) as looking:
            for start in range(0, 100_000, 5000):
                names = [f"desk-{number:06d}" for number in range(start, start + 5000)]
                await looking.ask("HSET", "usp:{3}:latest", *(word for name in names for word in (name, "x" * 100)))
            await looking.ask("HSET", "usp:{0}:latest", "odd[*]?\\^-", "x", "Ärger", "x")

    asyncio.run(fill())
    seek = lambda text: json.loads(asked(operator[0], f"/assets?text={urllib.parse.quote(text)}")[2])  # noqa: E731
    assert seek("DESK-09999") == {"names": [f"desk-09999{n}" for n in range(10)], "all": True}
    assert seek("no such asset") == {"names": [], "all": True}
    many = seek("desk")
    assert len(many["names"]) == 40 and not many["all"]
    assert seek("[*]?\\^-")["names"] == ["odd[*]?\\^-"]
    assert seek("Ärg")["names"] == ["Ärger"]


def test_wrong_use_is_one_line(operator, commands, tmp_path):
    port = urllib.parse.urlsplit(operator[0]).port
    assert f"127.0.0.1:{port} is in use by another process: give another with --port, or 0" in commands.refused(
        2, "console", "--port", str(port)
    )
    assert "cannot be read" in commands.refused(2, "console", "--token-file", str(tmp_path / "none"))
    short = tmp_path / "short"
    short.write_text("secret")
    assert "at least 16 plain letters" in commands.refused(2, "console", "--token-file", str(short))
    assert "is no address of this machine" in commands.refused(2, "console", "--host", "no.such.host.invalid")


def test_a_token_file_makes_an_operator(commands, tmp_path):
    file = tmp_path / "token"
    file.write_text("a-word-of-my-own-making\n")
    address = commands.console("filed", "--token-file", str(file))
    assert address.endswith("#operator=a-word-of-my-own-making")


def test_what_the_documentation_shows_starts_a_console(commands):
    (block,) = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "console.md").read_text(), re.S | re.M)
    for line in block.splitlines():
        predictor, *words = shlex.split(line, comments=True)
        assert predictor == "predictor"
        commands.start(line, *words)
        assert commands.heard(line, r"the console is at http://127.0.0.1:|8765 is in use")
        commands.kill(line)


async def test_a_viewer_who_reads_slowly_is_skipped_forward_and_costs_no_memory():
    """Forty megabytes are told while one viewer reads nothing; it then gets the newest, after a few that were sent."""
    board = Board(Settings())
    site = Site(Settings(), board)
    async with listening("127.0.0.1", 0, site.serve, "") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        for number in range(1, 401):
            board.waiting = f"{number} " + "x" * 100_000
            board._tell()
            await asyncio.sleep(0)
            await asyncio.sleep(0.001 if number % 20 else 0.02)
        seen = []
        while not seen or seen[-1] != 400:
            async with asyncio.timeout(10):
                event = await reader.readuntil(b"\n\n")
            if b'"why": "looking' not in event:
                seen.append(int(json.loads(event.partition(b"data: ")[2])["why"].split()[0]))
        assert seen == sorted(set(seen)) and len(seen) < 60  # the others were never written
        writer.close()


def test_viewers_and_assets_that_are_followed_have_a_limit():
    board = Board(Settings())
    looking = [board.looked_at(f"a{number}") for number in range(ASSETS_MAX)]
    for look in looking:
        look.__enter__()
    with pytest.raises(BadInput, match="assets are looked at already"), board.looked_at("one more"):
        pass
    looking += [board.looked_at("a0") for _ in range(VIEWERS_MAX - ASSETS_MAX)]
    for look in looking[ASSETS_MAX:]:
        look.__enter__()
    with pytest.raises(BadInput, match="viewers look already"), board.looked_at(""):
        pass
    for look in looking:
        look.__exit__(None, None, None)
    with board.looked_at("one more"):
        assert list(board._assets) == ["one more"]


@contextlib.asynccontextmanager
async def running(board):
    task = asyncio.create_task(board.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_board_that_nobody_looks_at_reads_nothing(server):
    board = Board(Settings(redis={"url": server.url}))
    async with running(board):
        await asyncio.sleep(0.3)
        assert board.fleet is None
        with board.looked_at(""):
            async with asyncio.timeout(10):
                while board.fleet is None or board.waiting:
                    await asyncio.sleep(0.02)
        assert isinstance(board.fleet, Fleet) and len(board.fleet.partitions) == 4
        await asyncio.sleep(1.2)
        last = board.fleet
        await asyncio.sleep(1.5)
        assert board.fleet is last


async def test_a_fleet_that_is_made_later_is_found_without_a_restart(server):
    settings = Settings(redis={"url": server.url, "namespace": "later"})
    board = Board(settings)
    async with running(board), asyncio.timeout(15):
        with board.looked_at(""):
            while "predictor init" not in board.waiting:
                await board.news.wait()
            store = RedisStateStore(server.url, "later")
            await store.open_fleet(2, bytes(8), FIELDS)
            while board.waiting:
                await board.news.wait()
            await store.close()
    assert board.fleet is not None and len(board.fleet.partitions) == 2
