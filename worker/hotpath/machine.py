"""How busy this machine's processors have been since it was started, whoever used them."""

from pathlib import Path

STAT = Path("/proc/stat")
TICKS_PER_S = 100.0  # USER_HZ: the same on every Linux
IDLE = (3, 4)  # idle, and waiting for a disk
GUESTS = 8  # the fields from here on are in the others already


def machine_seconds(stat: Path = STAT) -> tuple[float, float]:
    """Busy and all processor seconds, time stolen by other machines included; (0, 0) where nobody can say."""
    try:
        fields = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:]][:GUESTS]
    except (OSError, ValueError):
        return 0.0, 0.0
    idle = sum(fields[at] for at in IDLE if at < len(fields))
    return (sum(fields) - idle) / TICKS_PER_S, sum(fields) / TICKS_PER_S
