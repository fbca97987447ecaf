"""Memory filled by the pages of a file that holds nothing."""

from loadtests import pagecache
from loadtests.pagecache import memory, page_cache


def test_it_reads_a_file_as_large_as_memory_until_little_is_free(tmp_path, monkeypatch):
    told = iter([{"MemTotal": 1 << 40}, *[{"MemFree": free << 30} for free in (5, 3, 2, 1)]])
    monkeypatch.setattr(pagecache, "memory", lambda: next(told))
    with page_cache(tmp_path) as fill:
        fill()
        (file,) = tmp_path.iterdir()
        assert file.stat().st_size == 1 << 40 and file.stat().st_blocks == 0, "it takes room on the disk"
        assert not list(told)
    assert not list(tmp_path.iterdir())


def test_it_ends_with_the_file_where_others_hold_what_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(pagecache, "memory", lambda: {"MemTotal": 3 * pagecache.READ_AT_ONCE, "MemFree": 1 << 40})
    with page_cache(tmp_path) as fill:
        fill()
        fill()


def test_memory_is_told_in_bytes():
    found = memory()
    assert 0 < found["MemFree"] <= found["MemTotal"] and found["MemTotal"] > 1 << 28
    assert found["HugePages_Total"] < 1 << 20, "pages are counted, not measured"
