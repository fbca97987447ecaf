"""What a tick's fields say of its asset, and what the server says of itself."""

from state_store.keys import ASSET_BYTES_MAX
from state_store.logs import Looking


def asset_of(fields: dict[bytes, bytes]) -> str:
    """The asset's name as the dead letters have it; empty where a tick has none."""
    return fields.get(b"a", b"")[:ASSET_BYTES_MAX].decode("utf-8", "backslashreplace")


async def server_info(looking: Looking) -> dict[str, str]:
    """INFO as names and texts."""
    text = (await looking.ask("INFO")).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


async def server_time_s(looking: Looking) -> float:
    seconds, microseconds = await looking.ask("TIME")
    return int(seconds) + int(microseconds) / 1e6


async def server_config(looking: Looking, *names: str) -> dict[str, str]:
    """CONFIG GET, name by name, as servers before 7.0 want it."""
    found: dict[str, str] = {}
    for name in names:
        reply = [part.decode() for part in await looking.ask("CONFIG", "GET", name)]
        found.update(zip(reply[0::2], reply[1::2], strict=True))
    return found
