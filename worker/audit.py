"""Reads back whether every accepted tick has one prediction, in order.

Fed with what three logs hold: ticks, predictions and dead letters. They may come in any order of reading; within one
log of one partition they come as Redis has them. Memory: what has not met its counterpart yet, and a number per asset.
"""

from dataclasses import dataclass, field

Key = tuple[int, str, str]  # partition, tick id, asset


@dataclass
class Audit:
    """Counts; `missing`, `duplicated` and `out_of_order` are final when every log was read to its end."""

    ticks: int = 0
    rejected: int = 0
    predictions: int = 0
    out_of_order: int = 0
    _unanswered: set[Key] = field(default_factory=set, repr=False)  # ticks with no prediction or dead letter yet
    _unasked: dict[Key, int] = field(default_factory=dict, repr=False)  # predictions whose tick was not read yet
    _repeats: set[Key] = field(default_factory=set, repr=False)  # same asset and event time as the one before
    _newest_ns: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def accepted(self) -> int:
        """Ticks that were not dead-lettered."""
        return self.ticks - self.rejected

    @property
    def missing(self) -> int:
        """Accepted ticks with no prediction."""
        return len(self._unanswered)

    @property
    def duplicated(self) -> int:
        """Predictions without a tick of their own, or of an event time that has its prediction already."""
        return sum(self._unasked.values()) + len(self._repeats - self._unasked.keys())

    @property
    def clean(self) -> bool:
        return not (self.missing or self.duplicated or self.out_of_order)

    def tick(self, partition: int, tick_id: str, asset: str) -> None:
        self.ticks += 1
        self._meet((partition, tick_id, asset))

    def dead_letter(self, partition: int, tick_id: str, asset: str) -> None:
        self.rejected += 1
        self._answer((partition, tick_id, asset))

    def prediction(self, partition: int, tick_id: str, asset: str, timestamp_ns: int) -> None:
        self.predictions += 1
        key = (partition, tick_id, asset)
        newest_ns = self._newest_ns.setdefault(asset, timestamp_ns - 1)
        if timestamp_ns == newest_ns:
            self._repeats.add(key)
        elif timestamp_ns < newest_ns:
            self.out_of_order += 1
        self._newest_ns[asset] = max(newest_ns, timestamp_ns)
        self._answer(key)

    def _meet(self, key: Key) -> None:
        waiting = self._unasked.get(key, 0)
        if not waiting:
            self._unanswered.add(key)
        elif waiting == 1:
            del self._unasked[key]
        else:
            self._unasked[key] = waiting - 1

    def _answer(self, key: Key) -> None:
        if key in self._unanswered:
            self._unanswered.remove(key)
        else:
            self._unasked[key] = self._unasked.get(key, 0) + 1
