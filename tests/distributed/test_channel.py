"""Messages and ends, between threads that play processes over real sockets."""

from __future__ import annotations

import queue

from jobs import SECONDS, join_all


def test_messages_arrive_in_order(port):
    zero, one, two = channels = join_all(port, (3, 0), (3, 1), (3, 2))
    assert [channel.peers for channel in channels] == [[1, 2], [0], [0]]
    for channel in channels:
        channel.listen(lambda *end: None)
    for number in range(5):
        zero.send({"number": number})
        one.send({"number": -number})
    for channel in (one, two):
        assert [channel.receive(0)["number"] for _ in range(5)] == list(range(5))
    assert [-zero.receive(1)["number"] for _ in range(5)] == list(range(5))


def test_an_end_is_told_once_and_a_good_bye_is_none(port):
    zero, one, two = join_all(port, (3, 0), (3, 1), (3, 2))
    ends: queue.Queue = queue.Queue()
    zero.listen(lambda *end: ends.put(end))
    one.send({"ended": 2, "message": "no such file"})
    assert ends.get(timeout=SECONDS) == (1, {"ended": 2, "message": "no such file"})
    two.close()
    two._connections[0].close()
    one._connections[0].close()
    zero.wait_for_ends(SECONDS)
    assert ends.empty()


def test_a_lost_connection_is_told(port):
    zero, one = join_all(port, (2, 0), (2, 1))
    ends: queue.Queue = queue.Queue()
    zero.listen(lambda *end: ends.put(end))
    one._connections[0].close()
    assert ends.get(timeout=SECONDS) == (1, {})


def test_long_messages_arrive(port):
    zero, one = join_all(port, (2, 0), (2, 1))
    for channel in (zero, one):
        channel.listen(lambda *end: None)
    zero.send({"value": "é" * 300_000})
    zero.send({"value": 2})
    assert len(one.receive(0)["value"]) == 300_000 and one.receive(0)["value"] == 2
