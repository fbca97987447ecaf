"""A way to a server that can be cut, torn in the middle of a message, slowed, frozen, and led to another server."""

import asyncio
import random
from contextlib import suppress

CHUNK = 1 << 16


class Proxy:
    """Listens on a port of its own; use as an async context manager."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream  # a port on this machine
        self.port = 0
        self.delay_s = 0.0  # each chunk waits up to this long
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tearing = False
        self._ends: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "Proxy":
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        self._flowing.set()
        self.cut()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def cut(self) -> None:
        """Ends every connection at once; what is inside is lost."""
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    def tear(self) -> None:
        """Lets half of the next chunk through, then cuts."""
        self._tearing = True

    def freeze(self) -> None:
        """Lets nothing through, and ends nothing."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._ends.add(writer)
        try:
            with suppress(OSError):
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
                self._ends.add(up_writer)
                await asyncio.gather(self._pass(reader, up_writer), self._pass(up_reader, writer))
        except asyncio.CancelledError:
            pass  # the proxy is closing
        finally:
            writer.transport.abort()
            self._serving.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flowing.wait()
                if self.delay_s:
                    await asyncio.sleep(random.random() * self.delay_s)
                if self._tearing:
                    self._tearing = False
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    self.cut()
                    return
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
