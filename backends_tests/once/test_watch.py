"""Processes of a job learn at once, and all alike, which of them was lost."""

import multiprocessing
import os
import select
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from vmae_keras.distribution import watch
from vmae_keras.distribution.watch import Watch

AT_ONCE = 2  # seconds; measured: 3 to 12 ms
HOST = socket.gethostname()


def member(test, process, processes, address):
    """One process of a job: tells the test what it is told, and leaves when the test says so."""

    def on_lost(*lost):
        test.send(lost)
        if process == 0:  # nobody may take its end for the loss
            os._exit(1)

    if process == 0:
        own = Watch.listen(processes, "127.0.0.1")
    else:
        own = Watch.connect(address, process, processes)
    child = os.fork()  # as a data loader's; it lives on with all that its parent had open
    if child == 0:
        time.sleep(60)
        os._exit(0)
    own.start(on_lost)
    test.send((own.address, child))
    end = test.recv()
    own.leave()
    if end:
        os._exit(0)
    test.send("left")
    test.recv()


@contextmanager
def job(processes=3):
    """(process, connection to it) of each, all of them connected to the first."""
    spawn = multiprocessing.get_context("spawn")
    members, children, address = [], [], None
    try:
        for number in range(processes):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=member, args=(theirs, number, processes, address))
            process.start()
            theirs.close()
            members.append((process, ours))
            assert ours.poll(20)
            own_address, child = ours.recv()
            children.append(child)
            address = address or own_address
        yield members
    finally:
        for process, ours in members:
            process.kill()
            process.join()
            ours.close()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def told(connection):
    assert connection.poll(AT_ONCE)
    return connection.recv()


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_all_name_the_process_that_was_killed(lost):
    with job() as members:
        survivors = [number for number in range(3) if number != lost]
        members[lost][0].kill()
        for number in survivors:
            assert told(members[number][1]) == (lost, HOST)
        members[survivors[1]][0].kill()  # as it would end because of the first
        assert not any(members[number][1].poll(0.2) for number in survivors)


def test_who_said_good_bye_is_not_lost_and_the_others_watch_on():
    with job(4) as members:
        for number in (2, 0):
            members[number][1].send(False)
            assert told(members[number][1]) == "left"
        members[2][0].kill()
        assert not any(
            connection.poll(0.2) for _, connection in (members[0], members[1], members[3])
        )
        members[1][0].kill()
        assert told(members[3][1]) == (1, HOST)
        assert not members[0][1].poll(0.1)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_nobody_is_lost_when_all_leave_and_end(order):
    with job() as members:
        for number in order:
            process, connection = members[number]
            connection.send(True)
            process.join()
            assert process.exitcode == 0
        assert not any(connection.poll(0.1) for _, connection in members)


@pytest.fixture
def first():
    """Process 0 of four, and whom it missed."""
    lost = []
    zero = Watch.listen(4, "localhost")
    zero.start(lambda *who: lost.append(who))
    yield zero, lost
    zero.leave()


def test_strangers_are_turned_away_and_do_not_count(first):
    zero, lost = first
    host, port, token = zero.address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        connection.settimeout(AT_ONCE)
        assert connection.recv(100) == b""
    for address, process, processes in [
        (f"{host}:{port}:{token[:-1]}", 1, 4),
        (zero.address, 0, 4),
        (zero.address, 4, 4),
        (zero.address, 1, 3),
    ]:
        with pytest.raises(OSError, match=f"Received: process {process} of {processes}"):
            Watch.connect(address, process, processes)
    second = Watch.connect(zero.address, 1, 4)
    with pytest.raises(OSError, match="Received: process 1 of 4"):  # there is one already
        Watch.connect(zero.address, 1, 4)
    second.leave()
    assert lost == []


def test_who_never_came_is_not_lost_and_who_comes_late_is_told(first):
    zero, lost = first
    second, third = (Watch.connect(zero.address, process, 4) for process in (1, 2))
    assert lost == []
    second._connection.close()  # without a word
    heard = threading.Event()
    last = Watch.connect(zero.address, 3, 4)
    last.start(lambda process, host: (process, host) == (1, HOST) and heard.set())
    assert heard.wait(AT_ONCE)
    zero._thread.join(AT_ONCE)
    assert lost == [(1, HOST)]
    third.leave()


@pytest.mark.parametrize("loss", [True, False])
def test_all_others_are_told_before_the_first_process_can_end(loss, first, monkeypatch):
    def slowly(*message):
        time.sleep(0.02)
        say(*message)

    say = watch._say
    zero, _ = first
    second, *others = (Watch.connect(zero.address, process, 4) for process in (1, 2, 3))
    connections = [other._connection for other in others]
    monkeypatch.setattr(watch, "_say", slowly)
    if loss:
        second._connection.close()
        zero._thread.join()  # in which it calls on_lost
    else:
        zero.leave()
    assert select.select(connections, [], [], 0)[0] == connections
    for other in (second, *others):
        other.leave()


def test_the_address_is_short_and_an_unknown_one_an_error():
    zero = Watch.listen(2)
    host, port, token = zero.address.rsplit(":", 2)
    assert len(zero.address) == len(host) + len(port) + 34 <= 255
    Watch.connect(zero.address, 1, 2).leave()  # under the address that it found itself
    zero.leave()
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with pytest.raises(OSError):
        Watch.connect(f"127.0.0.1:{free}:{token}", 1, 2)
