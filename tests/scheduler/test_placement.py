import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import BadRules
from scheduler.placement import Member, Moves, PlacementRules, View, assign, plan

AT_ONCE = PlacementRules(hold_ms=0, hold_jitter_ms=0)

names = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=12, unique=True)
equal_fleets = names.map(lambda found: [Member(name) for name in found])
fleets = names.flatmap(
    lambda found: st.tuples(*(st.floats(0.1, 20.0) for _ in found)).map(
        lambda capacities: [Member(name, capacity) for name, capacity in zip(found, capacities, strict=True)]
    )
)
partition_counts = st.integers(1, 64)


@given(partition_counts, fleets)
@settings(max_examples=60)
def test_every_partition_has_exactly_one_wanted_owner(partitions, fleet):
    table = assign(partitions, fleet)
    assert sorted(table) == list(range(partitions))
    assert set(table.values()) <= {member.name for member in fleet}


@given(partition_counts, fleets, st.randoms())
@settings(max_examples=60)
def test_each_worker_gets_its_share_of_capacity_whoever_held_what(partitions, fleet, random):
    owners = {p: random.choice(fleet).name for p in range(partitions) if random.random() < 0.8}
    counts = Counter(assign(partitions, fleet, owners).values())
    total = math.fsum(member.capacity for member in fleet)
    for member in fleet:
        share = round(partitions * member.capacity / total, 9)
        assert math.floor(share) <= counts[member.name] <= math.ceil(share)


@given(partition_counts, equal_fleets.filter(lambda fleet: len(fleet) > 1))
@settings(max_examples=60)
def test_a_lost_worker_moves_its_own_partitions_only(partitions, fleet):
    before = assign(partitions, fleet)
    lost = fleet[0].name
    after = assign(partitions, fleet[1:], before)
    assert {p for p in before if before[p] != after[p]} == {p for p in before if before[p] == lost}


@given(partition_counts, fleets.filter(lambda fleet: len(fleet) > 1))
@settings(max_examples=60)
def test_with_unequal_capacities_a_loss_moves_at_most_one_partition_more_per_worker(partitions, fleet):
    before = assign(partitions, fleet)
    after = assign(partitions, fleet[1:], before)
    held = sum(owner == fleet[0].name for owner in before.values())
    assert sum(before[p] != after[p] for p in before) <= held + len(fleet) - 1


@given(partition_counts, equal_fleets)
@settings(max_examples=60)
def test_a_new_worker_receives_all_that_moves_and_no_more_than_its_share(partitions, fleet):
    before = assign(partitions, fleet)
    after = assign(partitions, [*fleet, Member("new")], before)
    moved = [p for p in before if before[p] != after[p]]
    assert all(after[p] == "new" for p in moved)
    assert len(moved) <= math.ceil(partitions / (len(fleet) + 1))


@given(partition_counts, fleets, st.randoms())
@settings(max_examples=30)
def test_the_order_of_the_view_does_not_matter(partitions, fleet, random):
    owners = {p: random.choice(fleet).name for p in range(partitions)}
    shuffled = random.sample(fleet, len(fleet))
    backwards = dict(reversed(owners.items()))
    assert assign(partitions, fleet, owners) == assign(partitions, shuffled, backwards)


def test_without_anyone_able_nothing_is_assigned():
    assert assign(8, []) == assign(8, [Member("draining", 0)]) == {}


def test_a_worker_without_capacity_gives_all_to_the_others():
    before = dict.fromkeys(range(8), "draining")
    assert set(assign(8, [Member("draining", 0), Member("b")], before).values()) == {"b"}


@pytest.mark.parametrize("capacity", [-1.0, math.nan, math.inf])
def test_a_capacity_must_be_a_number_that_means_something(capacity):
    with pytest.raises(BadRules, match="capacity of 'a'"):
        Member("a", capacity)


def test_spares_hold_nothing_and_ask_for_nothing():
    fleet = [Member(f"w{i:02}") for i in range(24)]
    owners = {p: f"w{p:02}" for p in range(16)}
    view = View(16, fleet, owners)
    assert assign(16, fleet, owners) == owners
    for spare in fleet[16:]:
        assert plan(spare.name, {}, view, 10**9, AT_ONCE) == Moves()


@given(partition_counts, fleets, st.randoms())
@settings(max_examples=40)
def test_views_that_agree_give_disjoint_plans(partitions, fleet, random):
    owners = {p: random.choice(fleet).name for p in range(partitions) if random.random() < 0.7}
    wanted = {p: random.choice(fleet).name for p in owners if random.random() < 0.5}
    view = View(partitions, fleet, owners, wanted)
    plans = {m.name: plan(m.name, _held(owners, m.name), view, 10**9, AT_ONCE) for m in fleet}
    for action in ("acquire", "want", "release"):
        touched = [p for moves in plans.values() for p in getattr(moves, action)]
        assert len(touched) == len(set(touched))
    acquired = {p for moves in plans.values() for p in moves.acquire}
    assert acquired == set(range(partitions)) - set(owners)


def test_nothing_is_handed_over_before_it_was_held_long_enough():
    rules = PlacementRules(hold_ms=10_000, hold_jitter_ms=0)
    view = View(2, [Member("a"), Member("b")], {0: "a", 1: "a"}, {0: "b", 1: "b"})
    assert plan("a", {0: 0, 1: 0}, view, 9_999, rules).release == ()
    assert len(plan("a", {0: 0, 1: 0}, view, 10_000, rules).release) == 1


def test_nothing_is_handed_over_unless_somebody_alive_asks_for_it():
    for wanted in ({}, {0: "dead", 1: "dead"}, {0: "a", 1: "a"}):
        view = View(2, [Member("a"), Member("b")], {0: "a", 1: "a"}, wanted)
        assert plan("a", {0: 0, 1: 0}, view, 10**9, AT_ONCE).release == ()


def test_the_jitter_of_the_hold_time_is_bounded_and_always_the_same():
    rules = PlacementRules(hold_ms=1_000, hold_jitter_ms=500)
    view = View(2, [Member("a"), Member("b")], {0: "a", 1: "a"}, {0: "b", 1: "b"})
    first = [bool(plan("a", {0: 0, 1: 0}, view, now, rules).release) for now in range(1_000, 1_501, 10)]
    assert first == sorted(first) and first[-1]


def test_a_worker_that_nobody_sees_does_nothing():
    assert plan("ghost", {0: 0}, View(2, [Member("b")], {}, {0: "b"}), 10**9, AT_ONCE) == Moves()


def test_the_lease_of_a_dead_worker_is_asked_for_until_it_ends():
    view = View(1, [Member("a")], {0: "dead"})
    assert plan("a", {}, view, 0, AT_ONCE) == Moves(want=(0,))
    assert plan("a", {}, View(1, [Member("a")]), 0, AT_ONCE) == Moves(acquire=(0,))


@given(st.randoms())
@settings(max_examples=10)
def test_a_fleet_that_comes_and_goes_always_settles_in_balance(random):
    partitions, rules = 24, PlacementRules(hold_ms=3_000, hold_jitter_ms=1_000)
    fleet, owners, wanted, since = {"w0": Member("w0")}, {}, {}, {}
    for second in range(90):
        if second < 50 and random.random() < 0.2:
            _someone_comes_or_goes(fleet, owners, random)
        view = View(partitions, list(fleet.values()), dict(owners), dict(wanted))
        for name in random.sample(sorted(fleet), len(fleet)):
            held = {p: since[p] for p in _held(owners, name)}
            moves = plan(name, held, view, second * 1_000, rules)
            assert not set(moves.acquire) & set(view.owners)
            for p in moves.release:
                del owners[p]
                wanted.pop(p, None)
            for p in moves.acquire:
                assert p not in owners
                owners[p], since[p] = name, second * 1_000
            wanted |= dict.fromkeys(moves.want, name)
    counts = Counter(owners.values())
    assert len(owners) == partitions
    assert max(counts.values()) - min(counts[name] for name in fleet) <= 1


def _held(owners, name):
    return {p: 0 for p, owner in owners.items() if owner == name}


def _someone_comes_or_goes(fleet, owners, random):
    if len(fleet) > 1 and random.random() < 0.5:
        gone = random.choice(sorted(fleet))
        del fleet[gone]
        for p in _held(owners, gone):
            del owners[p]
    else:
        name = f"w{random.randrange(10**6)}"
        fleet[name] = Member(name)
