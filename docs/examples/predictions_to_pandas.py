"""Reads a fleet's predictions into a pandas frame: one row for each, by asset and time.

    python predictions_to_pandas.py redis://127.0.0.1:6390
"""

import asyncio
import sys

import pandas as pd

from state_store import PredictionReader

COLUMNS = ["asset", "timestamp_ns", "reference_prediction", "confidence_lower", "confidence_upper", "tick_id"]


async def read_frame(url: str, start: str = "0", idle_s: float = 1.0) -> pd.DataFrame:
    """All that is kept from `start` on; ends when nothing came for `idle_s`."""
    rows = []
    async with PredictionReader(url, start=start) as reader:
        while batch := await reader.read(block_ms=int(idle_s * 1000)):
            rows += [[getattr(prediction, name) for name in COLUMNS] for prediction in batch]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["time"] = pd.to_datetime(frame.pop("timestamp_ns"), utc=True)
    return frame.set_index(["asset", "time"]).sort_index()


if __name__ == "__main__":
    frame = asyncio.run(read_frame(sys.argv[1]))
    print(frame.groupby("asset").tail(1))
