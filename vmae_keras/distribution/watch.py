"""Notification of all processes of a job as soon as one of them is gone.

Backends notice late, hang, or abort without a useful message. So each process holds a TCP connection to
process 0, which the kernel closes the moment the process ends, for whatever reason.
"""

import os
import secrets
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

PATIENCE = 5  # timeout in seconds for a connection, and for the reply to "bye"


class Watch:
    """A watch that notices at once when another process of the job is gone.

        watch = Watch.listen(processes)                      # process 0, which sends the others its address
        watch = Watch.connect(address, process, processes)   # the others
        watch.start(on_lost)
        ...
        watch.leave()

    A machine that vanishes without closing its connections is noticed after 30 seconds. A process that
    hangs or never connected is not noticed. After process 0 has left, the others still watch each other for
    as long as it is alive.

    Attributes:
        address: "host:port:token" in process 0, for the others; at most 39 characters longer than the host.
    """

    def __init__(self, connection: socket.socket, address: str = "") -> None:
        self.address = address
        self._connection, self._lines = connection, _lines(connection)
        self._first_host = ""
        self._thread: threading.Thread | None = None
        self._left = False
        os.register_at_fork(after_in_child=connection.close)  # a forked child would keep it open

    @classmethod
    def listen(cls, processes: int, host: str | None = None) -> "Watch":
        """Return the watch of process 0.

        Args:
            processes: Number of processes.
            host: This machine's name or address for the others; None for the address that it sends from.
        """
        own, hubs = socket.socketpair()
        hub = _Hub(processes, hubs)
        return cls(own, f"{host or _own_address()}:{hub.port}:{hub.token}")

    @classmethod
    def connect(cls, address: str, process: int, processes: int) -> "Watch":
        """Return the watch of process 1 .. processes - 1.

        Raises:
            OSError: Process 0 cannot be reached, or rejects the token or this process.
        """
        host, port, token = address.rsplit(":", 2)
        connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
        _keep_alive(connection)
        watch = cls(connection)
        _say(connection, f"{token} {process} {processes} {socket.gethostname()}")
        watch._first_host = next(watch._lines, "")
        if not watch._first_host:
            connection.close()
            raise ConnectionRefusedError(
                "Process 0 did not take this process for one of its job. Received: process "
                f"{process} of {processes}, {host}:{port}. Connect each once, to this job's address."
            )
        connection.settimeout(None)
        return watch

    def start(self, on_lost: Callable[[int, str], None]) -> None:
        """Call on_lost(process, host) once, from a separate thread, when a process is gone."""
        self._thread = threading.Thread(target=self._follow, args=(on_lost,), daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Sign off, so that this process's end does not count as a loss. `on_lost` is no longer called."""
        self._left = True
        _say(self._connection, "bye")
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        if self._thread is None:
            self.start(lambda *_: None)
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(PATIENCE)  # it ends when process 0 has received "bye"

    def _follow(self, on_lost: Callable[[int, str], None]) -> None:
        lost: tuple[int, str] | None = (
            0,
            self._first_host,
        )  # if the connection ends without a message
        with self._connection:
            for line in self._lines:
                word, *rest = line.split(" ", 2)
                if word == "lost":  # only the first counts: others end because of it
                    lost = (int(rest[0]), rest[1])
                    break
                lost = None  # process 0 has left
        if lost and not self._left:
            on_lost(*lost)


class _Hub:
    """The hub in process 0, which holds the connections of all processes and reports who is gone."""

    def __init__(self, processes: int, own: socket.socket) -> None:
        self.token = secrets.token_hex(16)
        self._awaited = {f"{self.token} {k} {processes}": k for k in range(1, processes)}
        self._members = {0: (own, socket.gethostname())}
        self._left: set[int] = set()
        self._announced: list[str] = []
        ipv6 = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self._listener = socket.create_server(
            ("", 0), family=family, backlog=processes, dualstack_ipv6=ipv6
        )
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        os.register_at_fork(after_in_child=self._close)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._members[0][0], selectors.EVENT_READ, 0)
            while self._members:
                for key, _ in selector.select():
                    if key.fileobj is not self._listener:
                        self._hear(selector, key.data)
                    elif (process := self._admit()) is not None:
                        selector.register(self._members[process][0], selectors.EVENT_READ, process)
        self._close()

    def _admit(self) -> int | None:
        """Accept a connection. Return its process's number; None if it is not of this job."""
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the connection was closed again
            return None
        connection.settimeout(1)
        hello, _, host = next(_lines(connection), "").rpartition(" ")
        process = self._awaited.pop(hello, None)
        if process is None:
            connection.close()
            return None
        connection.settimeout(None)
        _keep_alive(connection)
        self._members[process] = (connection, host)
        for line in (socket.gethostname(), *self._announced):
            _say(connection, line)
        return process

    def _hear(self, selector: selectors.BaseSelector, process: int) -> None:
        connection, host = self._members[process]
        try:
            word = connection.recv(64)
        except OSError:
            word = b""
        if word:  # the only message is "bye"
            self._left.add(process)
            if process == 0:
                self._announce("left")
            return
        selector.unregister(connection)
        connection.close()
        del self._members[process]
        if process not in self._left:
            self._announce(f"lost {process} {host}")

    def _announce(self, line: str) -> None:
        self._announced.append(line)  # for processes that connect later
        # Process 0 comes last, because it may end then.
        for process in sorted(self._members, reverse=True):
            _say(self._members[process][0], line)

    def _close(self) -> None:
        self._listener.close()
        for connection, _ in self._members.values():
            connection.close()


def _say(connection: socket.socket, line: str) -> None:
    with suppress(OSError):  # the other end is gone, which its connection will show
        connection.sendall(f"{line}\n".encode())


def _lines(connection: socket.socket) -> Iterator[str]:
    """Yield the lines received, until the connection ends."""
    rest = b""
    with suppress(OSError):
        while data := connection.recv(1024):
            *lines, rest = (rest + data).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # not every system has these options
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _own_address() -> str:
    """Return the address of this machine's default route.

    Its name may be unknown to other machines, or resolve to a loopback address.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation; nothing is sent
        except OSError:  # there is no route
            return "localhost"
        return probe.getsockname()[0]
