"""Runs the console: the board that looks, the site that tells, an address, and an orderly end."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_urlsafe

from worker.console.board import Board
from worker.console.site import LOOPBACK, Site
from worker.errors import BadInput, PortInUse
from worker.exits import notice
from worker.http import listening
from worker.settings import Settings

HOST, PORT = "127.0.0.1", 8765
TOKEN_LETTERS_MIN = 16
REMEDY = "give another with --port, or 0 for any free port"


@contextlib.asynccontextmanager
async def console(settings: Settings, host: str = HOST, port: int = PORT, token: str = "") -> AsyncIterator[str]:
    """Serves while the block runs; yields the address."""
    board = Board(settings)
    site = Site(settings, board, token, local=host in LOOPBACK)
    async with listening(host, port, site.serve, REMEDY) as found, asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(board.run())
        yield f"http://{_in_url(host)}:{found}/"
        looking.cancel()


@contextlib.asynccontextmanager
async def any_console(settings: Settings) -> AsyncIterator[str]:
    """At its usual port, or at any other where that one is taken."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            address = await stack.enter_async_context(console(settings))
        except PortInUse:
            address = await stack.enter_async_context(console(settings, port=0))
        yield address


async def run_console(settings: Settings, host: str, port: int, token: str) -> None:
    """Serves until Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with console(settings, host, port, token) as address:
        operator = f"#operator={token}" if token else ""
        notice(f"the console is at {address}{operator}  Ctrl-C ends it")
        if host not in LOOPBACK:
            notice("whoever reaches this address can read it: put it behind something that asks for a password")
        await stop.wait()


def token_of(operator: bool, file: Path | None) -> str:
    """An operator's token: out of a file, made anew, or none."""
    if file is None:
        return token_urlsafe(24) if operator else ""
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--token-file: {file} cannot be read: {error}") from None
    if len(token) < TOKEN_LETTERS_MIN or not token.isascii() or not token.isprintable() or " " in token:
        raise BadInput(f"--token-file: {file} must hold one word of at least {TOKEN_LETTERS_MIN} plain letters")
    return token


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
