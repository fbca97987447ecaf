"""streaq, run in the process by `run_async`; 64 tasks at once (its default of 16 is slower here).

Two processes share the queue, so nothing keeps the ticks of an asset in order. Messages are JSON, tasks have no time
limit, write no log lines and keep no results.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvloop
from redis.asyncio import Redis
from streaq import Worker

from loadtests.peers.job import QueueJob
from loadtests.peers.launch import Given, say_ready
from loadtests.peers.tasks import STREAQ_QUEUE, TASK_NAME

AT_ONCE = 64


async def serve(given: Given) -> None:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[QueueJob]:
        async with Redis(unix_socket_path=given.socket) as redis:
            job = QueueJob(redis)
            say_ready()
            yield job

    worker = Worker(
        given.url,
        concurrency=AT_ONCE,
        queue_name=STREAQ_QUEUE,
        lifespan=lifespan,
        serializer=json.dumps,
        deserializer=json.loads,
    )

    @worker.task(name=TASK_NAME, silent=True, timeout=None, ttl=0)
    async def predict(partition: int, asset: str, value: float, time_ns: int) -> None:
        await worker.context.run(partition, asset, value, time_ns)

    await worker.run_async()


if __name__ == "__main__":
    uvloop.run(serve(Given.read()))
