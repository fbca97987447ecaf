"""A task for each tick, as the bytes that a queue's own client would send; made before the run, as our ticks are.

    taskiq   XADD usp-tasks * data {"task_id":"1700...",...,"args":[3,"asset-0000012",501.27340511,1700...]}
    streaq   SET streaq:usp:task:data:1700... {"f":"predict","a":[...]}    XADD streaq:usp:queues:normal * task_id ...

So filling the queue costs a peer nothing. A task's id is its tick's time: no two ticks of a run have the same.
"""

from state_store.wire import encode

TASKIQ, STREAQ = "taskiq", "streaq"
QUEUE = "usp-tasks"
STREAQ_QUEUE = "usp"
TASK_NAME = "predict"
LOGS = {TASKIQ: QUEUE, STREAQ: f"streaq:{STREAQ_QUEUE}:queues:normal"}
TASKIQ_DATA = b'{"task_id":"%b","task_name":"%b","labels":{},"labels_types":{},"args":[%d,"%b",%b,%b],"kwargs":{}}'
STREAQ_DATA = b'{"f":"%b","a":[%d,"%b",%b,%b],"k":{},"t":0}'


def taskiq_task(partition: int, asset: bytes, value: bytes, time: bytes) -> bytes:
    """What `kiq` sends."""
    data = TASKIQ_DATA % (time, TASK_NAME.encode(), partition, asset, value, time)
    return encode("XADD", QUEUE, "*", "data", data)


def streaq_task(partition: int, asset: bytes, value: bytes, time: bytes) -> bytes:
    """What `enqueue` writes, without the script around it."""
    data = STREAQ_DATA % (TASK_NAME.encode(), partition, asset, value, time)
    key = b"streaq:%b:task:data:%b" % (STREAQ_QUEUE.encode(), time)
    return encode("SET", key, data, "NX") + encode(
        "XADD", LOGS[STREAQ], "*", "task_id", time, "enqueue_time", "1700000000000"
    )


COMMANDS = {TASKIQ: taskiq_task, STREAQ: streaq_task}
