"""The audit on disk: chained, synced, continued by the next leader, and any change to it shows."""

import pytest

from state_store.hotpath.store import Loaded
from worker.hotpath.archive import Archive, events, examine, files
from worker.hotpath.replay import replay
from worker.hotpath.retention import surplus

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


def test_a_full_file_is_followed_by_one_that_holds_its_last_link(tmp_path):
    archive = Archive(tmp_path, "usp", 5, Loaded(), segment_bytes=300)
    for entry in ENTRIES:
        archive.write([entry])
    kept = files(tmp_path)
    assert len(kept) > 2 and all(path.stat().st_size < 300 + 100 for path in kept)
    for before, after in zip(kept, kept[1:], strict=False):
        last = before.read_text().splitlines()[-1].split(" ", 1)[0]
        assert f'"previous": "{last}"' in after.read_text().splitlines()[0]
    findings = examine(tmp_path)
    assert findings.whole and not findings.elsewhere and findings.events == 10
    assert findings.begins["file"] == kept[0].name and findings.begins["as_told"]


def test_what_is_beyond_the_bound_is_the_oldest_and_never_the_newest(archived):
    sizes = [path.stat().st_size for path in files(archived)]
    assert surplus(archived, sum(sizes)) is None
    gone = surplus(archived, sizes[1])
    assert gone is not None and gone["files"] == ["audit-5-0.log"] and gone["bytes"] == sizes[0]
    assert surplus(archived, 0) == gone


async def test_the_archive_of_a_fleet_keeps_within_its_bound_and_says_what_it_removed(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning(archive_segment_bytes=20_000, archive_segments=4)
        removed, most = [], 0
        for _ in range(150):
            await fleet.window(leader)
            most = max(most, sum(path.stat().st_size for path in files(fleet.directory)))
            removed = [event for event in events(fleet.directory) if event["event_type"] == "archive_removed"]
            if len(removed) >= 2:
                break
        await fleet.window(leader)
        assert len(removed) >= 2 and most < 6 * 20_000
        gone = {name for event in removed for name in event["details"]["files"]}
        assert gone and not gone & {path.name for path in files(fleet.directory)}
        findings = examine(fleet.directory)
        assert findings.whole and not findings.elsewhere
        assert findings.begins["file"] == files(fleet.directory)[0].name and findings.begins["as_told"]
        again = replay(fleet.directory)
        assert again.agrees and again.terms >= 1 and again.events > 10
        files(fleet.directory)[0].unlink()  # by somebody, and nothing tells of it
        assert not examine(fleet.directory).begins["as_told"]


async def test_nothing_is_removed_before_the_event_that_tells_of_it_is_on_disk(open_fleet, monkeypatch):
    async with open_fleet() as fleet:
        leader = await fleet.tuning(archive_segment_bytes=4096, archive_segments=2)
        looked = []

        def remove(directory, told):
            told_of = [event for event in events(directory) if event["event_type"] == "archive_removed"]
            on_disk = [event["details"]["files"] for event in told_of]
            looked.append(told["files"] in on_disk and all((directory / name).exists() for name in told["files"]))

        monkeypatch.setattr("worker.hotpath.archivist.remove", remove)
        for _ in range(20):
            await fleet.window(leader)
        assert looked and all(looked)


async def test_a_file_that_cannot_be_removed_stays_and_the_archive_goes_on(open_fleet, monkeypatch):
    def refused(path, missing_ok):
        raise PermissionError(13, "Permission denied", str(path))

    async with open_fleet() as fleet:
        monkeypatch.setattr("pathlib.Path.unlink", refused)
        leader = await fleet.tuning(archive_segment_bytes=20_000, archive_segments=2)
        for _ in range(20):
            await fleet.window(leader)
        monkeypatch.undo()
        written = list(events(fleet.directory))
        assert any(event["event_type"] == "archive_removed" for event in written)
        assert examine(fleet.directory).whole and len(files(fleet.directory)) < len(written) / 4
        assert (await fleet.store.load()).audit_length < 20
