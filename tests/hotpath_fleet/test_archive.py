"""The audit on disk: chained, synced, continued by the next leader, and any change to it shows."""

import pytest

from state_store.hotpath.store import Loaded
from worker.hotpath.archive import Archive, events, examine

ENTRIES = [(f"{number}-0", b'{"seq": %d}' % number) for number in range(1, 11)]


@pytest.fixture
def archived(tmp_path):
    """Ten events by two leaders; the second did not hear that the last two of the first were on disk."""
    first = Archive(tmp_path, "usp", 5, Loaded())
    first.write(ENTRIES[:3])
    acknowledged = Loaded(archived_id=first.last_id, archive_head=first.head.hex(), archived=first.count)
    first.write(ENTRIES[3:5])
    second = Archive(tmp_path, "usp", 11, acknowledged)
    second.write(ENTRIES[3:])
    assert second.count == 10
    return tmp_path


def test_two_leaders_make_one_chain(archived):
    findings = examine(archived)
    assert (findings.whole, findings.files, findings.events) == (True, 2, 12)
    assert not findings.elsewhere and not findings.unfinished
    assert [event["seq"] for event in events(archived)] == list(range(1, 11))


@pytest.mark.parametrize("change", ["a letter", "a line less", "two lines swapped", "the first line"])
def test_any_change_shows(archived, change):
    path = archived / "audit-11-0.log"
    lines = path.read_bytes().splitlines(keepends=True)
    if change == "a letter":
        lines[2] = lines[2].replace(b'"seq": 5', b'"seq": 6')
    elif change == "a line less":
        del lines[2]
    elif change == "two lines swapped":
        lines[2], lines[3] = lines[3], lines[2]
    else:
        lines[0] = b"{}\n"
    path.write_bytes(b"".join(lines))
    assert not examine(archived).whole


def test_a_line_cut_off_by_a_crash_is_no_damage(archived):
    path = archived / "audit-11-0.log"
    path.write_bytes(path.read_bytes()[:-5])
    findings = examine(archived)
    assert findings.whole and findings.unfinished == ["audit-11-0.log"]
    assert [event["seq"] for event in events(archived)] == list(range(1, 10))


def test_a_chain_that_began_on_another_machine_is_told_from_a_broken_one(archived):
    (archived / "audit-5-0.log").unlink()
    findings = examine(archived)
    assert findings.whole and findings.elsewhere == ["audit-11-0.log"]


def test_after_a_write_that_failed_a_new_file_goes_on(tmp_path, monkeypatch):
    first = Archive(tmp_path, "usp", 5, Loaded())
    first.write(ENTRIES[:2])
    acknowledged = Loaded(archived_id=first.last_id, archive_head=first.head.hex(), archived=2)
    import os

    write = os.write

    def full(file, data):
        write(file, data[:7])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError):
        first.write(ENTRIES[2:4])
    monkeypatch.undo()
    second = Archive(tmp_path, "usp", 5, acknowledged)
    second.write(ENTRIES[2:])
    assert second.path.name == "audit-5-1.log"
    findings = examine(tmp_path)
    assert findings.whole and findings.unfinished == ["audit-5-0.log"]
    assert [event["seq"] for event in events(tmp_path)] == list(range(1, 11))
