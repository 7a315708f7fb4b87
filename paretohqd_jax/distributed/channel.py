"""The open connections between process 0 of a job and each of the others: JSON lines over TCP.

The operating system closes the connection of a process that ends, however it ends, so that the
others hear of it at once. JAX's coordination service has no substitute. Tried with two to four
processes on the CPU, jax 0.10.2 and 0.11.2 do the same:

* A process does not join. `jax.distributed.initialize(initialization_timeout=5)` ends those that
  came after 10 s, by SIGABRT (status 134) with 15 lines or more that name nobody; no exception is
  raised. Two processes with one number: one aborts at once, the others after 10 s. Another
  `num_processes` in one of them goes unnoticed. A coordinator's port that is taken: SIGSEGV.
* A process is killed. With `heartbeat_timeout_seconds=5` the others abort after 5 s, by default
  after 100 s; but with 5 s, a process that is merely stopped for 8 s ends the job too. With
  `jax_enable_recoverability` the others go on, and `get_live_nodes`, which is not public, tells
  them as late as the heartbeats do; the process that was stopped still aborts. A Python function as
  `missed_heartbeat_callback`, not public either, aborts (std::bad_cast). When process 0 is killed,
  all others abort within 0.4 s.
* A process fails. It waits at the service's shutdown barrier for `shutdown_timeout_seconds`, 300 by
  default, while the others hear nothing; then all abort.
* Messages. The key-value store carries them within 4 ms, even to a process whose main thread is in
  a collective that never ends, and barriers work; but they are not public, and learn of a death
  from the heartbeats alone. As a connection that tells it has to be there, it carries the messages
  too. `multihost_utils.broadcast_one_to_all` is public, but keeps all devices in a collective.

SIGTERM is left to JAX: `multihost_utils.reached_preemption_sync_point`.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]


class Connection:
    """A socket that carries one JSON object per line."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._received = b""

    def send(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # that the other has gone is noticed when reading
            self._socket.sendall((json.dumps(message) + "\n").encode())

    def receive(self, seconds: float | None = None, longest: int | None = None) -> Message | None:
        """The next message, or None when the other has gone.

        None too when the message takes more seconds, or has more bytes, than are allowed.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            while b"\n" not in self._received:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._socket.settimeout(left)
                part = self._socket.recv(65536)
                self._received += part
                if not part or (longest is not None and len(self._received) > longest):
                    return None
            line, _, self._received = self._received.partition(b"\n")
            message = json.loads(line)
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Channel:
    """The open connections of one process: process 0 has one to each other, the others one to 0.

    A message with "ended" in it, and a connection that closes without good-bye, go to
    `on_end(process, message or {})`, called in a thread; all others wait for `receive`.
    """

    def __init__(self, process_id: int, connections: dict[int, Connection]) -> None:
        self.process_id = process_id
        self._connections = connections
        self._inbox: dict[int, queue.Queue[Message]] = {peer: queue.Queue() for peer in connections}
        self._closed = {peer: threading.Event() for peer in connections}

    @property
    def peers(self) -> list[int]:
        return sorted(self._connections)

    def listen(self, on_end: Callable[[int, Message], None]) -> None:
        """Starts to take messages in."""
        for peer in self._connections:
            threading.Thread(target=self._take, args=(peer, on_end), daemon=True).start()

    def _take(self, peer: int, on_end: Callable[[int, Message], None]) -> None:
        explained = False
        while (message := self._connections[peer].receive()) is not None:
            if "ended" in message:
                threading.Thread(target=on_end, args=(peer, message), daemon=True).start()
            if "ended" in message or "bye" in message:
                explained = True
            else:
                self._inbox[peer].put(message)
        self._closed[peer].set()
        if not explained:
            on_end(peer, {})

    def send(self, message: Message) -> None:
        """To every peer."""
        for connection in self._connections.values():
            connection.send(message)

    def receive(self, peer: int) -> Message:
        """The next message of a peer, in the order it sent them; waits for it."""
        return self._inbox[peer].get()

    def wait_for_ends(self, seconds: float) -> None:
        """Returns when every peer has closed its connection, or after some seconds."""
        deadline = time.monotonic() + seconds
        for closed in self._closed.values():
            closed.wait(max(deadline - time.monotonic(), 0))

    def close(self) -> None:
        """Says good-bye: that this connection closes is no failure."""
        self.send({"bye": True})
