"""An order to the tuner, as it travels: whoever gives one needs nothing of what follows it."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

ID_BYTES_MAX, TEXT_MAX = 64, 500


@dataclass(frozen=True)
class Order:
    """One order; `expect` is the generation at which it makes sense, None for any."""

    id: str
    name: str
    actor: str
    reason: str
    expect: int | None = None
    args: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()
