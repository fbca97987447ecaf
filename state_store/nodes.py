"""The control clients of all nodes behind one name: a command goes to the node of its key."""

import asyncio
from typing import Any

import redis.exceptions
from redis.asyncio import Redis

from state_store.client import Address
from state_store.refusals import control_error, unreachable
from state_store.route import Route
from state_store.slots import key_of

_CLOSED = "the handler is closed"  # So uvloop speaks of a connection that broke between two writes of one opening.


class Nodes:
    """Like one control client, but raises our errors."""

    def __init__(self, route: Route):
        self.route = route
        self._clients: dict[Address, Redis] = {}

    async def execute_command(self, *words: Any) -> Any:
        """Executes a command once, at the node that has its key."""
        task = asyncio.current_task()
        assert task is not None
        cancels = task.cancelling()

        async def attempt(address: Address, asking: bool) -> Any:
            try:
                return await self._execute(address, asking, words)
            except redis.exceptions.RedisError as error:
                raise control_error(error, str(address)) from None
            except RuntimeError as error:
                if _CLOSED not in str(error):
                    raise
                raise unreachable(ConnectionResetError("closed while it was opened"), str(address)) from None

        try:
            return await self.route.follow(key_of(words), attempt)
        finally:
            if task.cancelling() > cancels:  # The client swallows one that comes just as it has written.
                raise asyncio.CancelledError

    async def _execute(self, address: Address, asking: bool, words: tuple[Any, ...]) -> Any:
        if address not in self._clients:
            self._clients[address] = address.control(self.route.timeouts)
        client = self._clients[address]
        if not asking:
            return await client.execute_command(*words)
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("ASKING")
            pipeline.execute_command(*words)
            return (await pipeline.execute())[1]

    async def aclose(self) -> None:
        """Closes all connections."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()
