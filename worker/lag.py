"""Where a fleet stands, as a table or as JSON."""

import asyncio
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from worker.lines import json_line
from worker.reach import open_store
from worker.settings import Settings
from worker.watch import PartitionView, Watch, total_rate


async def print_lag(settings: Settings, interval_s: float, as_json: bool) -> None:
    """Looks twice, `interval_s` apart, and prints."""
    async with open_store(settings) as store:
        watch = Watch(store, (await store.read_meta()).partitions)
        await watch.look()
        await asyncio.sleep(interval_s)
        views = await watch.look()
    if as_json:
        print(json_line({"total": totals(views), "partitions": [asdict(view) for view in views]}))
    else:
        Console().print(_table(views))


def totals(views: list[PartitionView]) -> dict[str, float | int | None]:
    """The fleet as one line."""
    return {
        "backlog": sum(view.backlog for view in views),
        "oldest_s": max((view.oldest_s for view in views), default=0.0),
        "rate": total_rate(views),
        "applied": sum(view.applied for view in views),
        "owned": sum(bool(view.owner) for view in views),
    }


def _table(views: list[PartitionView]) -> Table:
    table = Table(box=None, header_style="dim", footer_style="bold", show_footer=True)
    sums = totals(views)
    table.add_column("partition", "all", justify="right")
    table.add_column("owner", f"{sums['owned']} of {len(views)} held")
    table.add_column("cursor")
    for name, foot in (
        ("backlog", f"{sums['backlog']:,}"),
        ("oldest s", f"{sums['oldest_s']:.1f}"),
        ("ticks/s", f"{sums['rate'] or 0:,.0f}"),
        ("applied", f"{sums['applied']:,}"),
    ):
        table.add_column(name, foot, justify="right")
    for view in views:
        owner = f"sealed: {view.sealed}" if view.sealed else view.owner or "nobody"
        numbers = (f"{view.backlog:,}", f"{view.oldest_s:.1f}", f"{view.rate or 0:,.0f}", f"{view.applied:,}")
        table.add_row(str(view.partition), owner, view.cursor, *numbers)
    return table
