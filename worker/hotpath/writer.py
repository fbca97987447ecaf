"""The one write that makes a decision true: kept until it is known what became of it, and until replicas have it.

A write that was not accepted ends the term. One whose answer was lost is sent again, the very same, before all else.
"""

import logging

from state_store.hotpath.commit import HotpathCommit, HotpathOutcome
from state_store.hotpath.lease import Leadership
from state_store.hotpath.replicas import Replicated
from state_store.hotpath.store import HotpathStore
from worker.hotpath.report import Report
from worker.hotpath.term import Term

log = logging.getLogger(__name__)


class TermOver(Exception):
    """What this leader believed is not what is stored; or it leads no more, and then `deposed`."""

    def __init__(self, why: str, deposed: bool = False) -> None:
        super().__init__(why)
        self.deposed = deposed


class Writer:
    """What is known of the last write."""

    def __init__(self, replicas_min: int, report: Report) -> None:
        self.unsettled: HotpathCommit | None = None
        self.replicated: Replicated | None = None  # None where no replica must have a decision
        self._report, self._replicas_asked = report, replicas_min
        self._replicas_min: int | None = None
        self._decided = ""

    @property
    def replicas_lack(self) -> bool:
        return self.replicated is not None and not self.replicated.enough

    def forget(self) -> None:
        self.unsettled = self.replicated = None

    async def save(
        self, store: HotpathStore, leadership: Leadership, term: Term, answers: list[tuple[str, bytes]]
    ) -> None:
        """One write of all that changed, if anything did."""
        commit, diagnostics = term.draft(answers)
        self._report.diagnostics += diagnostics
        if commit is not None:
            await self.send(store, leadership, term, commit)

    async def send(self, store: HotpathStore, leadership: Leadership, term: Term, commit: HotpathCommit) -> None:
        self.unsettled = commit
        answer = await store.commit(leadership, commit)
        self.unsettled = None
        self._report.committed(commit, answer.outcome)
        if not answer.outcome.took_effect:
            deposed = answer.outcome in (HotpathOutcome.FENCED, HotpathOutcome.NO_LEASE)
            raise TermOver(f"{answer.outcome.value} for {commit.kind}", deposed)
        term.committed(commit.generation)
        term.engine.executor.audit_queue.outside = answer.audit_length
        self._decided = commit.id
        await self.confirm(store)

    async def confirm(self, store: HotpathStore) -> None:
        """Where replicas must have a decision, asks whether they do."""
        if self._replicas_min is None:
            self._replicas_min = max(self._replicas_asked, await store.replicas.minimum())
        if not self._replicas_min:
            return
        lacked = self.replicas_lack
        self.replicated = await store.replicas.confirm(self._decided, self._replicas_min)
        self._report.replicated(self.replicated)
        if self.replicas_lack and not lacked:
            log.warning("hotpath_not_replicated", extra={"have": self.replicated.have, "wanted": self._replicas_min})
