"""The console's addresses: the page, its events, answers to its questions, and, for operators, orders.

    GET  /  /*.js  /console.css       the page, as it lies in page/
    GET  /events?asset=NAME           server-sent events
    GET  /assets?text=T               names that hold T
    GET  /rejected  /tuner            dead letters; the tuner's state
    POST /orders                      only with an operator's token, from the page itself
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from state_store import StateStoreError
from state_store.glances import Glances
from state_store.hotpath.store import HotpathStore
from state_store.logs import Looking
from worker.console import names
from worker.console.board import TIMEOUTS, Board
from worker.console.kept import Kept
from worker.console.orders import obey
from worker.console.viewer import keep_told
from worker.errors import BadInput, WorkerError
from worker.exits import alone
from worker.hotpath.view import decisions
from worker.hotpath.view import status as tuner_facts
from worker.http import BadRequest, Request, Response, head, read_request
from worker.letters import brief, newest_of
from worker.lines import json_line
from worker.reach import open_store
from worker.settings import Settings, masked
from worker.version import version

PAGE = Path(__file__).parent / "page"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LETTERS_SHOWN, LETTERS_OF_EACH = 50, 20
RECENT_SHOWN = 200  # events of the tuner, of which the newest decisions are told
SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
JSON = "application/json; charset=utf-8"


class Site:
    """Answers requests from the board, and what the board does not know from short questions that are kept a while."""

    def __init__(self, settings: Settings, board: Board, token: str = "", local: bool = True) -> None:
        self._settings, self._board, self._token, self._local = settings, board, token, local
        self._files = {_path_of(file): _static(file) for file in PAGE.iterdir()}
        self._questions = {"/about": self._about, "/assets": self._assets, "/rejected": self._rejected}
        self._questions["/tuner"] = self._tuner
        self._found = Kept[dict[str, Any]](10.0, 64)
        self._letters = Kept[dict[str, Any]](3.0, 1)
        self._facts = Kept[dict[str, Any]](2.0, 1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its request to its end."""
        try:
            await self._answer(await read_request(reader), writer)
        except BadRequest as error:
            writer.write(_told(error.status, {"error": str(error)}).encode())
            await writer.drain()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if self._local and _host(request.headers.get("host", "")) not in LOOPBACK:
            raise BadRequest(421)  # a foreign name that was made to point here
        if request.method == "GET" and request.path == "/events":
            return await self._events(request, writer)
        response = await self._response(request)
        writer.write(response.encode(with_body=request.method != "HEAD"))
        await writer.drain()

    async def _response(self, request: Request) -> Response:
        if request.path == "/orders":
            return await self._order(request)
        if request.method not in ("GET", "HEAD"):
            raise BadRequest(405)
        if (file := self._files.get(request.path)) is not None:
            fresh = request.headers.get("if-none-match") == file.headers["ETag"]
            return Response(304, file.content_type, b"", file.headers) if fresh else file
        if (question := self._questions.get(request.path)) is not None:
            return await _patiently(lambda: question(request))
        raise BadRequest(404)

    async def _events(self, request: Request, writer: asyncio.StreamWriter) -> None:
        asset = request.query.get("asset", "")
        try:
            with self._board.looked_at(asset):
                writer.write(head(200, "text/event-stream", SAFE | {"Cache-Control": "no-store"}))
                await keep_told(self._board, asset, writer)
        except BadInput as error:
            writer.write(_told(503, {"error": str(error)}).encode())
            await writer.drain()

    async def _about(self, _: Request) -> dict[str, Any]:
        place = self._settings.redis
        return {
            "redis": masked(place.url),
            "namespace": place.namespace,
            "version": version(),
            "operator": bool(self._token),
        }

    async def _assets(self, request: Request) -> dict[str, Any]:
        text = request.query.get("text", "")[: names.TEXT_MAX]
        return await self._found.get(text, lambda: self._search(text))

    async def _search(self, text: str) -> dict[str, Any]:
        async with self._glances() as (glances, partitions):
            found = await names.search(glances, partitions, text)
        return {"names": found.names, "all": found.all}

    async def _rejected(self, _: Request) -> dict[str, Any]:
        return await self._letters.get("", self._newest_letters)

    async def _newest_letters(self) -> dict[str, Any]:
        async with self._glances() as (glances, _):
            letters = await glances.newest_letters(LETTERS_OF_EACH)
            _, total = await glances.sizes()
        kinds: dict[str, int] = {}
        for letter in letters:
            kinds[letter.kind] = kinds.get(letter.kind, 0) + 1
        newest = [brief(letter) | {"kind": letter.kind} for letter in newest_of(letters, LETTERS_SHOWN)]
        return {"total": total, "looked_at": len(letters), "kinds": kinds, "newest": newest}

    async def _tuner(self, _: Request) -> dict[str, Any]:
        return await self._facts.get("", self._tuner_facts)

    async def _tuner_facts(self) -> dict[str, Any]:
        place = self._settings.redis
        async with open_store(self._settings) as fleet:
            await fleet.read_meta()
        store = HotpathStore(place.url, place.namespace)
        try:
            found = await store.show(RECENT_SHOWN)
        finally:
            await store.close()
        return tuner_facts(self._settings, found) | {"decisions": decisions(found)}

    @contextlib.asynccontextmanager
    async def _glances(self):
        place = self._settings.redis
        async with open_store(self._settings) as store, Looking(place.url, TIMEOUTS) as looking:
            meta = await store.read_meta()
            yield Glances(looking, place.namespace, meta.partitions, meta.generation), meta.partitions

    async def _order(self, request: Request) -> Response:
        if request.method != "POST":
            raise BadRequest(405)
        given = request.headers.get("x-operator-token", "").encode()
        if not self._token or not hmac.compare_digest(given, self._token.encode()) or not _from_here(request.headers):
            return _told(403, {"error": "only an operator may do this: open the address that `--operator` prints"})
        try:
            asked = json.loads(request.body)
        except (ValueError, RecursionError):
            raise BadRequest from None
        if not isinstance(asked, dict):
            raise BadRequest
        self._letters.forget()
        self._facts.forget()
        return await _patiently(lambda: self._obeyed(asked), refused=409)

    async def _obeyed(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return {"told": await obey(self._settings, asked)}
        finally:
            self._letters.forget()
            self._facts.forget()


async def _patiently(question: Callable[[], Awaitable[dict[str, Any]]], refused: int = 400) -> Response:
    """The answer, or in one line why there is none."""
    try:
        return _told(200, await question())
    except StateStoreError as error:
        return _told(503, {"error": str(error)})
    except WorkerError as error:
        return _told(refused, {"error": str(alone(error))})


def _told(status: int, value: Mapping[str, Any]) -> Response:
    return Response(status, JSON, json_line(value).encode(), SAFE | {"Cache-Control": "no-store"})


def _path_of(file: Path) -> str:
    return "/" if file.name == "index.html" else f"/{file.name}"


def _static(file: Path) -> Response:
    body = file.read_bytes()
    content_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    if content_type.startswith("text/"):
        content_type += "; charset=utf-8"
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    return Response(200, content_type, body, SAFE | {"ETag": tag, "Cache-Control": "no-cache"})


def _host(given: str) -> str:
    try:
        return urlsplit(f"//{given}").hostname or ""
    except ValueError:
        return ""


def _from_here(headers: Mapping[str, str]) -> bool:
    """Sent by the page that came from this very address, not by another one that the operator has open."""
    origin = urlsplit(headers.get("origin", ""))
    site = headers.get("sec-fetch-site", "same-origin")
    return bool(origin.netloc) and origin.netloc == headers.get("host") and site == "same-origin"
