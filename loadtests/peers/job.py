"""What a task of a queue does with its tick: GET the state, one step, then SET and XADD in one pipeline."""

from typing import Any

from redis.asyncio import Redis

from loadtests.peers.launch import predictions_key, state_key
from loadtests.peers.models import Jitted


class QueueJob:
    """One process's model and connection."""

    def __init__(self, redis: Redis) -> None:
        self._redis, self._model = redis, Jitted()

    async def run(self, partition: int, asset: str, value: float, time_ns: int) -> None:
        place = state_key(partition, asset)
        state: Any = await self._redis.get(place)
        state, prediction = self._model.step(state, value, time_ns, time_ns)
        async with self._redis.pipeline(transaction=False) as together:
            together.set(place, state)
            together.xadd(predictions_key(partition), {"a": asset, "t": str(time_ns), "p": prediction})
            await together.execute()
