"""taskiq over a Redis stream, run in the process by `run_receiver_task`; a hundred tasks at once, which is its default.

Two processes share the queue, so nothing keeps the ticks of an asset in order. The state goes through Redis as every
task of a queue keeps one. No results are stored, messages are not checked against the function's annotations, and a
task is acknowledged when it has run.
"""

import uvloop
from redis.asyncio import Redis
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from loadtests.peers.job import QueueJob
from loadtests.peers.launch import Given, say_ready
from loadtests.peers.tasks import QUEUE, TASK_NAME

AT_ONCE = 100
LOCK_S = 5.0


async def serve(given: Given) -> None:
    job = QueueJob(Redis(unix_socket_path=given.socket))
    broker = RedisStreamBroker(given.url, QUEUE, consumer_id="0", unacknowledged_lock_timeout=LOCK_S)

    @broker.task(TASK_NAME)
    async def predict(partition: int, asset: str, value: float, time_ns: int) -> None:
        await job.run(partition, asset, value, time_ns)

    await broker.startup()
    say_ready()
    await run_receiver_task(broker, max_async_tasks=AT_ONCE, validate_params=False)


if __name__ == "__main__":
    uvloop.run(serve(Given.read()))
