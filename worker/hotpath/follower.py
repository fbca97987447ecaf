"""A worker's side of the tuner: takes a document or leaves it, and needs nobody to come back from a probe.

    document --> checked --> newer than mine? --> one reference replaced --> the next micro-batch
                                                       ^
    no word of a leader for the probe's time ----------+ the centre of the same document
    frozen by an operator -----------------------------+ what the worker was started with

Pure but for the file of the last good document: time comes in as an argument.
"""

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from worker.hotpath.document import Document, RefusedDocument, decode
from worker.hotpath.knobs import REGISTRY, Knobs, turned

log = logging.getLogger(__name__)


class Follower:
    """What this worker follows; `swap` is called with each new value."""

    def __init__(self, fleet: str, base: Knobs, swap: Callable[[Knobs, float], None], file: Path | None = None) -> None:
        self.fleet, self.base, self.file = fleet, base, file
        self.knobs = base
        self.document: Document | None = None
        self.refused: Counter[str] = Counter()
        self.frozen = False
        self.expired = 0  # probes that were left without a leader's word
        self._heard_s = 0.0
        self._swap = swap
        self._told = b""

    @property
    def pair(self) -> tuple[int, int]:
        """The newest configuration that was accepted."""
        return self.document.pair if self.document else (0, 0)

    def remember(self, now_s: float) -> None:
        """At the start, before anybody was asked: the centre of the last good document."""
        if self.file is None or not self.file.is_file():
            return
        with suppress(OSError, RefusedDocument):
            self.document = decode(self.file.read_bytes(), self.fleet, REGISTRY)
            self._heard_s = now_s
            self._take(self._centre(self.document), now_s)

    def hear(self, now_s: float, confirmed: bool, frozen: bool, configured: bool) -> None:
        """Takes note of what a look told beside documents; confirmed: somebody leads, and wants what is followed."""
        if confirmed:
            self._heard_s = now_s
        if not configured and self.document is not None and not frozen:
            self.document = None  # a new fleet: what was kept on disk is another one's
            self._take(self.base, now_s)
        if frozen != self.frozen:
            self.frozen = frozen
            log.warning("hotpath_frozen" if frozen else "hotpath_unfrozen")
            self._take(self.base if frozen or self.document is None else self._live(self.document), now_s)

    def offer(self, encoded: bytes, now_s: float) -> bool:
        """Follows a document if it is sound and newer; else counts why not, and all stays as it was."""
        try:
            document = decode(encoded, self.fleet, REGISTRY)
            if document.pair <= self.pair:
                raise RefusedDocument("order", f"{document.pair} is not newer than {self.pair}")
        except RefusedDocument as refused:
            self._refuse(refused, encoded)
            return False
        self.document, self._heard_s = document, now_s
        if not self.frozen:
            self._take(self._live(document), now_s)
        self._keep(encoded)
        return True

    def check(self, now_s: float) -> None:
        """The dead man's switch: a probe without a word of its leader ends; a centre never does."""
        document = self.document
        if document is None or self.frozen or document.phase == "centre" or self.knobs.pair != document.pair:
            return
        if now_s - self._heard_s > document.probe_ttl_ms / 1000:
            self.expired += 1
            log.warning("hotpath_probe_expired", extra={"generation": document.generation})
            self._take(self._centre(document), now_s)

    def _live(self, document: Document) -> Knobs:
        return turned(self.base, document.live, *document.pair)

    def _centre(self, document: Document) -> Knobs:
        """Not what the leader believes to be in force unless it is the centre anyway, so not under its number."""
        pair = document.pair if document.phase == "centre" else (0, 0)
        return turned(self.base, document.centre, *pair)

    def _take(self, knobs: Knobs, now_s: float) -> None:
        self.knobs = knobs
        self._swap(knobs, now_s)

    def _refuse(self, refused: RefusedDocument, encoded: bytes) -> None:
        self.refused[refused.kind] += 1
        if encoded != self._told:  # once for each document, not at every look
            self._told = encoded
            log.warning("hotpath_document_refused", extra={"kind": refused.kind, "why": str(refused)})

    def _keep(self, encoded: bytes) -> None:
        if self.file is None:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            beside = self.file.with_suffix(".new")
            beside.write_bytes(encoded)
            beside.replace(self.file)
        except OSError as error:
            log.warning("hotpath_document_not_kept", extra={"why": str(error)})
