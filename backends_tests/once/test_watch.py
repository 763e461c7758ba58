"""Tests that all processes of a job learn at once, and consistently, which of them was lost."""

import multiprocessing
import os
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from vmae_keras.distribution import watch
from vmae_keras.distribution.watch import Watch

HOST = socket.gethostname()


def member(test, job, process, processes, address):
    """Run one process of a job, which reports its events to the test and leaves when told to.

    Args:
        test: Connection to the test.
        job: Connection that closes with the job.
    """

    def on_lost(*lost):
        test.send(lost)
        if process == 0:  # its exit must not look like the loss
            os._exit(1)

    watch.PATIENCE = 60  # the machine may be busy
    if process == 0:
        own = Watch.listen(processes, "127.0.0.1")
    else:
        own = Watch.connect(address, process, processes)
    # Like a data loader's worker, this child survives and inherits all open connections except `test`.
    if os.fork() == 0:
        test.close()
        job.poll(None)
        os._exit(0)
    own.start(on_lost)
    test.send(own.address)
    end = test.recv()
    own.leave()
    if end:
        os._exit(0)
    test.send("left")
    test.recv()


@contextmanager
def job(processes=3):
    """Yield (process, connection to it) for each process, all connected to the first."""
    spawn = multiprocessing.get_context("spawn")
    members, address = [], None
    there, here = spawn.Pipe(duplex=False)
    try:
        for number in range(processes):
            ours, theirs = spawn.Pipe()
            arguments = (theirs, there, number, processes, address)
            process = spawn.Process(target=member, args=arguments)
            process.start()
            theirs.close()
            members.append((process, ours))
            own_address = ours.recv()
            address = address or own_address
        yield members
    finally:
        for process, ours in members:
            process.kill()
            process.join()
            ours.close()
        there.close()
        here.close()


def rest(members):
    """End the processes; return the events that each reported and that are still unread."""
    told = []
    for process, connection in members:
        process.kill()
        process.join()
        told.append([])
        with pytest.raises(EOFError):
            while True:
                told[-1].append(connection.recv())
    return told


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_all_name_the_process_that_was_killed(lost):
    with job() as members:
        survivors = [number for number in range(3) if number != lost]
        members[lost][0].kill()
        for number in survivors:
            assert members[number][1].recv() == (lost, HOST)
        assert rest(members) == [[], [], []]  # although the others end, too


def test_who_said_good_bye_is_not_lost_and_the_others_watch_on():
    with job(5) as members:
        for number in (2, 0):
            members[number][1].send(False)
            assert members[number][1].recv() == "left"
        members[2][0].kill()
        members[1][0].kill()
        for number in (3, 4):
            assert members[number][1].recv() == (1, HOST)  # 2 would have been reported earlier
        process, connection = members[4]
        process.kill()
        process.join()
        process, connection = members[3]
        connection.send(True)
        process.join()  # it has received every message by then
        assert rest(members) == [[], [], [], [], []]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_nobody_is_lost_when_all_leave_and_end(order):
    with job() as members:
        for number in order:
            process, connection = members[number]
            connection.send(True)
            process.join()
            assert process.exitcode == 0
        assert rest(members) == [[], [], []]


@pytest.fixture
def first(monkeypatch):
    """Return process 0 of four, and the processes that it reported lost."""
    monkeypatch.setattr(watch, "PATIENCE", 60)  # the machine may be busy
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
    with pytest.raises(OSError, match="Received: process 1 of 4"):  # this number is taken
        Watch.connect(zero.address, 1, 4)
    second.leave()
    assert lost == []


def test_who_never_came_is_not_lost_and_who_comes_late_is_told(first):
    zero, lost = first
    second, third = (Watch.connect(zero.address, process, 4) for process in (1, 2))
    assert lost == []
    second._connection.close()  # without leaving
    heard = threading.Event()
    last = Watch.connect(zero.address, 3, 4)
    last.start(lambda process, host: (process, host) == (1, HOST) and heard.set())
    heard.wait()
    zero._thread.join()
    assert lost == [(1, HOST)]
    third.leave()


@pytest.mark.parametrize("loss", [True, False])
def test_all_others_are_told_before_the_first_process_can_end(loss, first, monkeypatch):
    """Slow down the notifications, so that a late one is missed."""

    def slowly(connection, line):
        time.sleep(0.02)
        say(connection, line)
        told.append(line)

    say, told = watch._say, []
    zero, _ = first
    second, *others = (Watch.connect(zero.address, process, 4) for process in (1, 2, 3))
    monkeypatch.setattr(watch, "_say", slowly)
    if loss:
        second._connection.close()
        zero._thread.join()  # the thread that calls on_lost
    else:
        zero.leave()
    line = f"lost 1 {HOST}" if loss else "left"
    assert told.count(line) >= (2 if loss else 3)
    for other in (second, *others):
        other.leave()


def test_the_address_is_short_and_an_unknown_one_an_error():
    zero = Watch.listen(2)
    host, port, token = zero.address.rsplit(":", 2)
    assert len(zero.address) == len(host) + len(port) + 34 <= 255
    Watch.connect(zero.address, 1, 2).leave()  # the address that it found itself
    zero.leave()
    with socket.socket() as silent:  # nothing else can listen there
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            Watch.connect(f"127.0.0.1:{silent.getsockname()[1]}:{token}", 1, 2)
