"""The audit on disk: append-only, each line chained to the one before by its hash, and synced before it counts.

    audit-<token of the leader>-<number>.log
    {"after": id, "fleet": name, "previous": link}                 the head: where in the chain this file begins
    <link> <id> <event>                                            one event
    ...

Each leader has files of its own, so two never write to the same, and begins a new one after a write that failed. An
event leaves Redis when the server knows that it is on disk; if that news is lost the next leader writes it again, and
its file says where it goes on from.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scheduler.hotpath.audit_chain import ROOT, chain, verify
from state_store.hotpath.store import Entry, Loaded

NAME = re.compile(r"audit-(\d+)-(\d+)\.log")
FILES_MAX = 10_000  # of one leader


class Archive:
    """One file of one leader; of no more use once a write has failed."""

    def __init__(self, directory: Path, fleet: str, token: int, loaded: Loaded) -> None:
        self.last_id, self.count = loaded.archived_id, loaded.archived
        self.head = bytes.fromhex(loaded.archive_head) or ROOT
        directory.mkdir(parents=True, exist_ok=True)
        paths = (directory / f"audit-{token}-{number}.log" for number in range(FILES_MAX))
        self.path = next(path for path in paths if not path.exists())
        began = {"after": self.last_id, "fleet": fleet, "previous": self.head.hex()}
        self._append(json.dumps(began, sort_keys=True).encode() + b"\n")

    def write(self, entries: list[Entry]) -> None:
        """Appends events; when it returns they are on disk."""
        records = [entry_id.encode() + b" " + event for entry_id, event in entries]
        lines, head = chain(records, self.head)
        self._append(b"".join(lines))
        self.head, self.last_id, self.count = head, entries[-1][0], self.count + len(entries)

    def _append(self, data: bytes) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
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
    links: set[str] = field(default_factory=set, repr=False)

    @property
    def whole(self) -> bool:
        return not self.damaged


def examine(directory: Path) -> Findings:
    """Follows the chain through every file, in the order of the leaders."""
    findings = Findings(links={ROOT.hex()})
    for path in _files(directory):
        findings.files += 1
        _examine_file(path, findings)
    return findings


def events(directory: Path) -> Iterator[dict]:
    """Every archived event once, in order, with its id."""
    for entry_id, event in records(directory):
        yield {"id": entry_id, **json.loads(event)}


def records(directory: Path) -> Iterator[tuple[str, bytes]]:
    """The same as they were written; what two leaders both wrote down counts once."""
    seen: set[bytes] = set()
    for path in _files(directory):
        for line in path.read_bytes().splitlines(keepends=True)[1:]:
            if not line.endswith(b"\n"):
                break
            _, entry_id, event = line.split(b" ", 2)
            if entry_id not in seen:
                seen.add(entry_id)
                yield entry_id.decode(), event.removesuffix(b"\n")


def _files(directory: Path) -> list[Path]:
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
    if previous not in findings.links:
        findings.elsewhere.append(path.name)
    fault, _ = verify(lines[1:], head)
    if fault is not None:
        findings.damaged.append(f"{path.name}: line {fault + 2} does not follow from the one before")
    good = lines[1 : None if fault is None else fault + 1]
    findings.events += len(good)
    findings.links |= {previous, *(line.split(b" ", 1)[0].decode() for line in good)}
