"""How the processes of a job meet: all call process 0, which says who is missing or does not fit.

They meet on the coordinator's port before JAX's service listens there, so that no second port has
to be open. channel.py says what that service lacks.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Collection
from typing import NoReturn

from paretohqd_jax.distributed.channel import Channel, Connection, Message
from paretohqd_jax.errors import InputError

HELLO_SECONDS = 5.0  # for the first line of whoever connects
HELLO_BYTES = 4096  # that it may have
LONGEST_LIST = 8  # processes named in a message


class NotJoined(Exception):
    """Not all processes of the job came in time; a later start may find them."""


def join(address: str, num_processes: int, process_id: int, timeout: float) -> Channel:
    """Meets the other processes of the job.

    Args:
      address: HOST:PORT of process 0.
      num_processes: of the job.
      process_id: of this one.
      timeout: seconds to wait for the others.

    Raises:
      InputError: two of them do not fit together, or the address is none.
      NotJoined: not all came in time.
    """
    host, port = split_address(address)
    deadline = time.monotonic() + timeout
    hello = {"process": process_id, "of": num_processes}
    if process_id == 0:
        connections = _gather(host, port, num_processes, deadline, timeout)
    else:
        connections = {0: _call(host, port, hello, deadline, timeout)}
    return Channel(process_id, connections)


def split_address(address: str) -> tuple[str, int]:
    """Host and port; raises InputError for what has not both."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"--coordinator={address!r} must be HOST:PORT, the address of process 0")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine can connect to this host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _gather(host: str, port: int, num_processes: int, deadline: float, timeout: float) -> dict:
    """Process 0: waits for the others to call, and tells all of them to go on or why not."""
    connections: dict[int, Connection] = {}
    with _server(host, port) as server:
        while len(connections) < num_processes - 1:
            left = deadline - time.monotonic()
            if left <= 0:
                _refuse(connections, NotJoined(_missing(connections, num_processes, timeout)))
            server.settimeout(left)
            try:
                connection = Connection(server.accept()[0])
            except TimeoutError:
                continue
            hello = connection.receive(min(left, HELLO_SECONDS), HELLO_BYTES)
            process = None if hello is None else hello.get("process")
            if not isinstance(process, int) or process < 0:
                connection.close()  # a stranger
                continue
            reason = _misfit(hello, connections, num_processes)
            if reason is not None:
                _refuse({**connections, -1: connection}, InputError(reason))
            connections[process] = connection
    for connection in connections.values():
        connection.send({"go": True})
    return connections


def _misfit(hello: Message, known: Collection[int], num_processes: int) -> str | None:
    """Why a process cannot belong to the job, in words, or None."""
    process = hello["process"]
    if hello.get("of") != num_processes:
        return (
            f"process {process} was started with --num_processes={hello.get('of')}, process 0 with "
            f"{num_processes}; start all alike"
        )
    if process >= num_processes:
        return f"--process_id={process} is not valid; {num_processes} processes count from 0"
    if process == 0 or process in known:
        return f"two processes have --process_id={process}; number them anew"
    return None


def _refuse(connections: dict[int, Connection], error: InputError | NotJoined) -> NoReturn:
    for connection in connections.values():
        connection.send({"refused": str(error), "late": isinstance(error, NotJoined)})
    raise error


def _missing(connections: dict[int, Connection], num_processes: int, timeout: float) -> str:
    absent = [process for process in range(1, num_processes) if process not in connections]
    names = ", ".join(map(str, absent[:LONGEST_LIST])) + (", ..." if absent[LONGEST_LIST:] else "")
    return (
        f"{len(absent)} of {num_processes} processes did not join within {timeout:g} s: {names}; "
        "start them all with the same --coordinator and look at their output"
    )


def _call(
    host: str, port: int, hello: Message, deadline: float, timeout: float
) -> Connection:  # fmt: skip
    """Another process: calls process 0 until it answers."""
    while time.monotonic() < deadline:
        try:
            connected = socket.create_connection(
                (host, port), max(deadline - time.monotonic(), 0.1)
            )
        except OSError:
            time.sleep(0.2)
            continue
        connection = Connection(connected)
        connection.send(hello)
        answer = connection.receive(2 * timeout + HELLO_SECONDS)  # process 0 may be the later one
        if answer is not None and "refused" in answer:
            raise (NotJoined if answer.get("late") else InputError)(answer["refused"])
        if answer is not None and "go" in answer:
            return connection
        connection.close()  # not a process of this job, or one that has ended
        time.sleep(0.2)
    raise NotJoined(
        f"process 0 did not answer at {host}:{port} within {timeout:g} s; start it, and check "
        "--coordinator and that other hosts may connect to this port"
    )


def _server(host: str, port: int) -> socket.socket:
    """Listens on all interfaces, unless all processes are on this machine."""
    local = is_loopback(host)
    both = not local and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or (local and ":" in host) else socket.AF_INET
    try:
        return socket.create_server(
            (host if local else "", port), family=family, dualstack_ipv6=both
        )
    except OSError as error:
        raise InputError(
            f"process 0 cannot listen on the coordinator's port {port} ({error.strerror}); "
            "give another one"
        ) from error
