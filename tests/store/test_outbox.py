"""Numbering, acknowledging and rewinding, against a server that may forget."""

from hypothesis import given
from hypothesis import strategies as st

from state_store.outbox import Outbox


class ForgetfulServer:
    """Takes numbered ticks the way the ingest script does, and may lose its newest."""

    def __init__(self):
        self.log: list[bytes] = []
        self.last = 0

    def take(self, first: int, resume: bool, ticks: list[bytes], room: int) -> tuple[str, int]:
        last = self.last
        if first > last + 1:
            if not resume:
                return "GAP", last
            last = first - 1
        fresh = ticks[last + 1 - first :][:room]
        if fresh:  # else nothing is written, a gap neither
            self.log += fresh
            self.last = last = last + len(fresh)
        return "OK", last

    def forget(self, count: int) -> None:
        count = min(count, len(self.log))
        del self.log[len(self.log) - count :]
        self.last -= count


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 5)),
        st.tuples(st.just("send"), st.integers(0, 5)),
        st.tuples(st.just("send and lose the reply"), st.integers(0, 5)),
        st.tuples(st.just("forget"), st.integers(1, 4)),
    ),
    max_size=60,
)


def send(outbox: Outbox, server: ForgetfulServer, room: int) -> None:
    code, last = server.take(outbox.acknowledged + 1, outbox.resume, outbox.head(3), room)
    if code == "GAP":
        outbox.rewind(last)
    else:
        outbox.acknowledge(last)


@given(steps)
def test_with_a_long_memory_every_tick_arrives_once_and_in_order(steps):
    outbox, server, made = Outbox(rewind_max=10_000), ForgetfulServer(), 0
    for what, count in steps:
        if what == "put":
            outbox.waiting.extend(b"%d" % n for n in range(made, made + count))
            made += count
        elif what == "send":
            send(outbox, server, count)
        elif what == "forget":
            server.forget(count)
        else:
            server.take(outbox.acknowledged + 1, outbox.resume, outbox.head(3), count)
    while outbox.waiting:
        send(outbox, server, 5)
    outbox.waiting.append(b"%d" % made)  # Only the next tick shows what the server forgot at the very end.
    while outbox.waiting:
        send(outbox, server, 5)
    assert server.log == [b"%d" % n for n in range(made + 1)] and outbox.lost == 0


def test_what_is_lost_is_counted_once_though_there_is_no_room_to_resume():
    outbox, server = Outbox(rewind_max=0), ForgetfulServer()
    outbox.waiting.extend([b"1", b"2", b"3"])
    send(outbox, server, 5)
    server.forget(2)
    outbox.waiting.append(b"4")
    for room in (0, 0, 0, 5):
        send(outbox, server, room)
    assert (server.log, outbox.lost, outbox.acknowledged) == ([b"1", b"4"], 2, 4)


@given(steps, st.integers(0, 3))
def test_with_a_short_memory_what_is_missing_is_counted(steps, rewind_max):
    outbox, server, made = Outbox(rewind_max), ForgetfulServer(), 0
    for what, count in steps:
        if what == "put":
            outbox.waiting.extend(b"%d" % n for n in range(made, made + count))
            made += count
        elif what == "forget":
            server.forget(count)
        else:
            send(outbox, server, count)
    outbox.waiting.append(b"%d" % made)
    while outbox.waiting:
        send(outbox, server, 5)
    assert len(set(server.log)) == len(server.log)
    assert server.log == sorted(server.log, key=int)
    assert made + 1 - len(server.log) <= outbox.lost + sum(count for what, count in steps if what == "forget")
