"""Processes that meet, or do not: played by threads over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from jobs import SECONDS, join_all

from paretohqd_jax.distributed import joining
from paretohqd_jax.distributed.joining import NotJoined, is_loopback, join
from paretohqd_jax.errors import InputError


def test_those_who_do_not_come_are_named_to_all_who_came(port, monkeypatch):
    come = threading.Event()

    def check(*arguments):
        come.set()
        return misfit(*arguments)

    misfit = joining._misfit
    monkeypatch.setattr(joining, "_misfit", check)
    # The time is over when process 5 has come, however long it takes for that.
    clock = SimpleNamespace(monotonic=lambda: 30.0 * come.is_set(), sleep=time.sleep)
    monkeypatch.setattr(joining, "time", clock)
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
    monkeypatch.setattr(joining, "HELLO_SECONDS", 1.0)
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
        with joining._server(host, port) as server:
            assert is_loopback(server.getsockname()[0]) == local


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
