"""What a peer's process is told when it starts."""

import json
import sys
from dataclasses import dataclass

READY = "peer ready"


@dataclass(frozen=True)
class Given:
    """One process of `workers`, the first has number 1."""

    kind: str
    socket: str
    folder: str  # for files of the run
    partitions: int
    number: int
    workers: int

    @classmethod
    def read(cls) -> "Given":
        return cls(**json.loads(sys.argv[1]))

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def share(self) -> list[int]:
        """The partitions that belong to this process alone, where a peer shares them out by hand."""
        return list(range(self.number - 1, self.partitions, self.workers))


def say_ready() -> None:
    """The measurement waits for this line of every process."""
    print(READY, flush=True)


def ticks_key(partition: int) -> str:
    return f"usp:{{{partition}}}:ticks"


def predictions_key(partition: int) -> str:
    return f"usp:{{{partition}}}:predictions"


def state_key(partition: int, asset: str) -> str:
    return f"usp:{{{partition}}}:state:{asset}"
