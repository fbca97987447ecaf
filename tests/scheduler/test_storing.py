import pytest

from scheduler.errors import BadRules
from scheduler.storing import Storing, StoringRules, Unstored


def storing(scarce=False, **rules):
    made = Storing(StoringRules(**rules))
    made.begin(scarce)
    return made


@pytest.mark.parametrize(
    ("batches", "ticks", "rows", "age_s", "due"),
    [
        (16, 2_000, 60, 1.0, True),  # each write serves 33 ticks
        (15, 2_000, 60, 1.0, False),  # too soon
        (16, 4_000, 500, 1.0, True),  # eight ticks a write
        (16, 3_999, 500, 1.0, False),
        (16, 3_999, 500, 30.0, True),  # late
        (1, 32_768, 9_000, 1.0, True),  # too many to make again
        (3, 10, 10, 3600.0, False),  # few commits: an idle partition stores its states by itself
    ],
)
def test_a_write_serves_several_ticks_unless_too_much_would_have_to_be_made_again(batches, ticks, rows, age_s, due):
    assert storing().due(Unstored(batches, ticks, rows, age_s)) is due


def test_states_go_with_each_commit_when_every_is_one():
    assert storing(every=1).due(Unstored(1, 5, 5, 0.0))


def test_everything_may_go_at_once_while_memory_is_scarce():
    assert storing(scarce=True).due(Unstored(1, 1, 1, 0.0))


def test_one_micro_batch_stores_about_so_many_rows_of_all_partitions_together():
    made, large, small = storing(rows_at_once=100), Unstored(16, 9_000, 80, 1.0), Unstored(16, 9_000, 15, 1.0)
    assert [made.due(each) for each in (small, large, large, small)] == [True, True, True, False]
    made.begin(scarce=False)
    assert made.due(small), "the next has an allowance of its own"


def test_memory_that_is_scarce_is_freed_by_one_large_partition_after_the_other():
    """A partition comes with the rows of its newest ticks, or with all that it was not allowed to store."""
    made, unstored, batches = Storing(StoringRules(rows_at_once=100)), dict.fromkeys(range(16), 1_000), 0
    while any(rows > 10 for rows in unstored.values()):
        made.begin(scarce=True)
        unstored = {p: 5 if made.due(Unstored(1, 5, rows, 0.0)) else rows + 5 for p, rows in unstored.items()}
        batches += 1
    assert batches <= 17


def test_what_would_take_too_long_to_make_again_is_stored_whatever_else_is():
    made = storing(rows_at_once=100, ticks_max=10_000)
    assert made.due(Unstored(16, 9_000, 800, 1.0)) and made.due(Unstored(17, 10_000, 800, 1.0))


@pytest.mark.parametrize("name", ["every", "ticks_max", "late_s", "rows_at_once"])
def test_rules_under_which_nothing_would_ever_be_stored_are_refused(name):
    with pytest.raises(BadRules, match=name):
        StoringRules(**{name: 0})
