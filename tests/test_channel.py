"""Processes that meet, played by threads over real sockets."""

from __future__ import annotations

import queue
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from paretohqd_jax import channel as channels
from paretohqd_jax.channel import NotJoined, is_loopback, join
from paretohqd_jax.errors import InputError

SECONDS = 60.0  # far more than anything here needs


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def join_all(port, *members, timeout=SECONDS):
    """Joins (num_processes, process_id) pairs at once: for each the channel or the error."""
    with ThreadPoolExecutor(len(members)) as pool:
        calls = [pool.submit(join, f"localhost:{port}", *pair, timeout) for pair in members]
    return [call.exception() or call.result() for call in calls]


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


def test_those_who_do_not_come_are_named_to_all_who_came(port, monkeypatch):
    come = threading.Event()

    def check(*arguments):
        come.set()
        return misfit(*arguments)

    misfit = channels._misfit
    monkeypatch.setattr(channels, "_misfit", check)
    # The time is over when process 5 has come, however long it takes for that.
    clock = SimpleNamespace(monotonic=lambda: 30.0 * come.is_set(), sleep=time.sleep)
    monkeypatch.setattr(channels, "time", clock)
    errors = join_all(port, (12, 0), (12, 5), timeout=20.0)
    for error in errors:
        assert isinstance(error, NotJoined)
        assert "10 of 12 processes did not join within 20 s: 1, 2, 3, 4, 6, 7, 8, 9, ...;" in str(
            error
        )


def test_process_0_that_does_not_come_is_named(port):
    [error] = join_all(port, (2, 1), timeout=0.5)
    assert isinstance(error, NotJoined)
    assert f"process 0 did not answer at localhost:{port} within 0.5 s" in str(error)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([(3, 1), (3, 1)], "two processes have --process_id=1"),
        ([(3, 3)], "--process_id=3 is not valid; 3 processes count from 0"),
        ([(4, 2)], "process 2 was started with --num_processes=4, process 0 with 3"),
    ],
)
def test_processes_that_do_not_fit_together_are_refused(port, others, message):
    for error in join_all(port, (3, 0), *others):
        assert isinstance(error, InputError) and message in str(error)


def visit(port: int, words: list[bytes]) -> bool:
    """A stranger who calls and says words one by one; whether it was sent away meanwhile."""
    while True:
        try:
            with socket.create_connection(("localhost", port), SECONDS) as stranger:
                for word in words:
                    stranger.sendall(word)
                    time.sleep(0.02)
                return False
        except ConnectionRefusedError:
            time.sleep(0.01)
        except (BrokenPipeError, ConnectionResetError):
            return True


@pytest.mark.parametrize(
    ("words", "sent_away"),
    [
        ([b"GET / HTTP/1.0\r\n\r\n"], False),
        ([b'{"process": -1, "of": 2}\n'], False),
        ([b"x"] * 3000, True),  # one at a time, beyond the time for a hello
        ([b"x" * 5000] * 3000, True),  # beyond its length
    ],
    ids=["web", "negative", "slow", "long"],
)
def test_a_stranger_on_the_port_is_ignored(port, words, sent_away, monkeypatch):
    monkeypatch.setattr(channels, "HELLO_SECONDS", 1.0)
    with ThreadPoolExecutor(2) as pool:
        visitor = pool.submit(visit, port, words)
        zero = pool.submit(join, f"localhost:{port}", 2, 0, SECONDS)
        assert visitor.result() == sent_away
        one = join(f"localhost:{port}", 2, 1, SECONDS)
    assert zero.result().peers == [1] and one.peers == [0]


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("10.0.0.5", False),
        ("node1", False),
    ],
)
def test_a_job_of_one_machine_does_not_listen_to_others(host, local, port):
    assert is_loopback(host) == local
    if host != "::1":  # which not every machine has
        with channels._server(host, port) as server:
            assert is_loopback(server.getsockname()[0]) == local


def test_long_messages_arrive(port):
    zero, one = join_all(port, (2, 0), (2, 1))
    for channel in (zero, one):
        channel.listen(lambda *end: None)
    zero.send({"value": "é" * 300_000})
    zero.send({"value": 2})
    assert len(one.receive(0)["value"]) == 300_000 and one.receive(0)["value"] == 2


def test_a_port_that_is_taken_is_named(port):
    with (
        socket.create_server(("localhost", port)),
        pytest.raises(InputError, match=f"port {port}.*another"),
    ):
        join(f"localhost:{port}", 2, 0, 1.0)


@pytest.mark.parametrize(
    "address", ["localhost", ":80", "localhost:port", "localhost:0", "localhost:65536", ""]
)
def test_an_address_without_host_or_port_is_refused(address):
    with pytest.raises(InputError, match="must be HOST:PORT"):
        join(address, 2, 1, 1.0)
