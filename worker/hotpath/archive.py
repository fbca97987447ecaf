"""The audit on disk: append-only, each line chained to the one before by its hash, and synced before it counts.

    audit-<token of the leader>-<number>.log
    {"after": id, "fleet": name, "previous": link}                 the head: the last link of the file before
    <link> <id> <event>                                            one event
    ...

Each leader has files of its own, so two never write to the same. It begins a new one when one is full, and after a
write that failed; `retention` says which of the old ones go. An event leaves Redis when the server knows that it is on
disk; if that news is lost the next leader writes it again, and its file says where it goes on from.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scheduler.hotpath import EventType
from scheduler.hotpath.audit_chain import ROOT, chain, verify
from state_store.hotpath.store import Entry, Loaded

NAME = re.compile(r"audit-(\d+)-(\d+)\.log")
SEGMENT_BYTES = 64 << 20
REMOVED = f'"event_type":"{EventType.ARCHIVE_REMOVED.value}"'.encode()


class Archive:
    """The files of one leader, one after the other; of no more use once a write has failed."""

    def __init__(
        self, directory: Path, fleet: str, token: int, loaded: Loaded, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.last_id, self.count = loaded.archived_id, loaded.archived
        self.head = bytes.fromhex(loaded.archive_head) or ROOT
        self._directory, self._fleet, self._token, self._segment_bytes = directory, fleet, token, segment_bytes
        directory.mkdir(parents=True, exist_ok=True)
        self._begin()

    def write(self, entries: list[Entry]) -> None:
        """Appends events; when it returns they are on disk. A file that is full before gets no more of them."""
        if self.path.stat().st_size >= self._segment_bytes:
            self._begin()
        records = [entry_id.encode() + b" " + event for entry_id, event in entries]
        lines, head = chain(records, self.head)
        self._append(b"".join(lines))
        self.head, self.last_id, self.count = head, entries[-1][0], self.count + len(entries)

    def _begin(self) -> None:
        """The next file, whose head holds the last link of the one before."""
        names = [NAME.fullmatch(path.name) for path in files(self._directory)]
        own = [int(name[2]) for name in names if name and int(name[1]) == self._token]
        self.path = self._directory / f"audit-{self._token}-{max(own, default=-1) + 1}.log"  # old ones may be gone
        began = {"after": self.last_id, "fleet": self._fleet, "previous": self.head.hex()}
        self._append(json.dumps(began, sort_keys=True).encode() + b"\n", os.O_CREAT | os.O_EXCL)

    def _append(self, data: bytes, flags: int = 0) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | flags, 0o600)
        try:
            while data:
                data = data[os.write(file, data) :]
            os.fsync(file)
        finally:
            os.close(file)


@dataclass
class Findings:
    """What a look at the archive found; it is whole when nothing is damaged."""

    files: int = 0
    events: int = 0
    damaged: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)  # files that go on from events archived on another machine
    unfinished: list[str] = field(default_factory=list)  # files whose last line was cut off by a crash
    begins: dict[str, Any] = field(default_factory=dict)  # the oldest file, and whether why is told
    links: set[str] = field(default_factory=set, repr=False)
    told: set[str] = field(default_factory=set, repr=False)  # links up to which files were removed, as events say

    @property
    def whole(self) -> bool:
        return not self.damaged


def examine(directory: Path) -> Findings:
    """Follows the chain through every file, in the order of the leaders."""
    findings = Findings(links={ROOT.hex()})
    for path in files(directory):
        findings.files += 1
        _examine_file(path, findings)
    if findings.begins:
        findings.begins["as_told"] = findings.begins["link"] in {ROOT.hex(), *findings.told}
        if not findings.begins["as_told"]:
            findings.elsewhere.insert(0, findings.begins["file"])
    return findings


def events(directory: Path) -> Iterator[dict]:
    """Every archived event once, in order, with its id."""
    for entry_id, event in records(directory):
        yield {"id": entry_id, **json.loads(event)}


def records(directory: Path) -> Iterator[tuple[str, bytes]]:
    """The same as they were written; what two leaders both wrote down counts once."""
    seen: set[bytes] = set()
    for path in files(directory):
        for line in path.read_bytes().splitlines(keepends=True)[1:]:
            if not line.endswith(b"\n"):
                break
            _, entry_id, event = line.split(b" ", 2)
            if entry_id not in seen:
                seen.add(entry_id)
                yield entry_id.decode(), event.removesuffix(b"\n")


def files(directory: Path) -> list[Path]:
    """The files of the archive in the order of the leaders."""
    found = [(NAME.fullmatch(path.name), path) for path in directory.glob("audit-*.log")]
    return [path for _, path in sorted(((int(name[1]), int(name[2])), path) for name, path in found if name)]


def _examine_file(path: Path, findings: Findings) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        findings.unfinished.append(path.name)
        lines.pop()
    if not lines:
        return
    try:
        previous = json.loads(lines[0])["previous"]
        head = bytes.fromhex(previous)
    except (ValueError, KeyError, TypeError):
        findings.damaged.append(f"{path.name}: its first line cannot be read")
        return
    if not findings.begins:
        findings.begins = {"file": path.name, "link": previous}
    elif previous not in findings.links:
        findings.elsewhere.append(path.name)
    fault, _ = verify(lines[1:], head)
    if fault is not None:
        findings.damaged.append(f"{path.name}: line {fault + 2} does not follow from the one before")
    good = lines[1 : None if fault is None else fault + 1]
    findings.events += len(good)
    findings.links |= {previous, *(line.split(b" ", 1)[0].decode() for line in good)}
    findings.told |= {json.loads(line.split(b" ", 2)[2])["details"].get("link") for line in good if REMOVED in line}
