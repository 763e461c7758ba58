"""Tests of the launchers' variables, which tell a process its rank and job."""

import json
import socket
import sys

import pytest

from vmae_keras.cli.shared.job import held_port
from vmae_keras.distribution.launcher import Cluster, LauncherError, detect, expand_hosts

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
}
ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
KERAS = {
    ADDRESSES: "node1:1234",
    "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    "KERAS_DISTRIBUTION_PROCESS_ID": "1",
}
# An allocation with more nodes and tasks than the step uses.
SLURM = {
    "SLURM_JOB_ID": "12345",
    "SLURM_JOB_NODELIST": "login1,node[01-03,07],gpu1",
    "SLURM_NTASKS": "9",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_NODELIST": "node[01-03],gpu1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
}


def tf_config(kind, index, **cluster):
    config = {"cluster": cluster, "task": {"type": kind, "index": index}}
    return {"TF_CONFIG": json.dumps(config)}


def slurm(process):
    """Return srun's variables for the task of that number, without those of other launchers."""
    place = {"NODEID": process // 2, "LOCALID": process % 2, "PROCID": process}
    return SLURM | {f"SLURM_{name}": str(value) for name, value in place.items()}


@pytest.mark.skipif(
    sys.platform != "linux", reason="others let nobody listen on a port that is held"
)
def test_a_held_port_is_given_to_nobody_else_until_a_process_listens_there():
    with held_port() as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("localhost", port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("localhost", port))
        with socket.create_server(("localhost", port)):
            socket.create_connection(("localhost", port)).close()


def test_alone():
    assert detect({}) is None
    assert detect({"RANK": "", "TF_CONFIG": " ", "MASTER_ADDR": "node1"}) is None
    assert detect({"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert detect(tf_config("worker", 0, worker=["node1:1"])) is None
    assert detect({"TF_CONFIG": "{}"}) is None
    assert detect({name: "01"["NUM" in name] for name in KERAS} | {ADDRESSES: "a:1"}) is None
    assert (
        detect({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}) is None
    )  # an interactive shell


def test_tf_config():
    workers = ["a:1", "b:1", "b:2"]
    assert detect(tf_config("worker", 2, worker=workers)) == Cluster(
        3, 2, tuple(workers), 1, 2, "TF_CONFIG"
    )
    with_chief = {"chief": ["c:1"], "worker": workers}
    addresses = ("c:1", *workers)
    assert detect(tf_config("chief", 0, **with_chief)) == Cluster(
        4, 0, addresses, 0, 1, "TF_CONFIG"
    )
    assert detect(tf_config("worker", 1, **with_chief)) == Cluster(
        4, 2, addresses, 0, 2, "TF_CONFIG"
    )


def test_torchrun():
    assert detect(TORCHRUN) == Cluster(8, 5, ("node1:29500",), 1, 4, "torchrun")
    by_hand = {
        name: TORCHRUN[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    }
    assert detect(by_hand) == Cluster(8, 5, ("node1:29500",), 0, None, "torchrun")


def test_torchrun_on_one_machine_and_on_its_own_port():
    held = TORCHRUN | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1"}
    held |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "::1"}
    assert detect(held).addresses == ("[::1]:29501", "[::1]:29502")


def test_keras():
    assert detect(KERAS) == Cluster(2, 1, ("node1:1234",), 0, None, "Keras")
    every = KERAS | {ADDRESSES: "node1:1234, node1:1235"}
    assert detect(every) == Cluster(2, 1, ("node1:1234", "node1:1235"), 1, 2, "Keras")


def test_the_tasks_of_a_slurm_step():
    found = [detect(slurm(process)) for process in range(7)]
    hosts = ["node01", "node01", "node02", "node02", "node03", "node03", "gpu1"]
    # 12345 mod 4096 = 57, counted from 65536 - 4096 = 61440, where JAX places its first process.
    ports = [61497, 61498] * 3 + [61497]
    addresses = tuple(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))
    assert [each.process for each in found] == list(range(7))
    assert {each.addresses for each in found} == {addresses}
    assert [each.local_process for each in found] == [0, 1, 0, 1, 0, 1, 0]
    assert [each.local_processes for each in found] == [2, 2, 2, 2, 2, 2, 1]


def test_slurm_ports_stay_below_the_last():
    last = detect(slurm(0) | {"SLURM_JOB_ID": "4095"}).addresses
    assert last[:2] == ("node01:65535", "node01:61440")


def test_the_shell_of_an_sbatch_script_is_no_task():
    step = (
        "SLURM_STEP_ID",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_STEP_NODELIST",
        "SLURM_STEP_TASKS_PER_NODE",
    )
    shell = {name: value for name, value in slurm(0).items() if name not in step}
    assert shell["SLURM_PROCID"] == "0"
    assert shell["SLURM_NTASKS"] == "9"
    assert detect(shell) is None


def test_the_launcher_nearest_to_the_process_decides():
    workers = tf_config("worker", 0, worker=["a:1", "b:1"])
    assert detect(slurm(3) | KERAS | TORCHRUN | workers).launcher == "TF_CONFIG"
    assert detect(slurm(3) | KERAS | TORCHRUN).launcher == "torchrun"
    assert detect(slurm(3) | KERAS).launcher == "Keras"
    assert detect(slurm(3)).launcher == "Slurm"
    assert detect(slurm(3) | {"RANK": "0", "WORLD_SIZE": "1"}) is None


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("node001", ["node001"]),
        ("a,b-1", ["a", "b-1"]),
        ("node[01-03,07],gpu1", ["node01", "node02", "node03", "node07", "gpu1"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
        ("n[098-101]-ib", ["n098-ib", "n099-ib", "n100-ib", "n101-ib"]),
        ("r[1-2]n[0,3]", ["r1n0", "r1n3", "r2n0", "r2n3"]),
    ],
)
def test_slurms_list_of_hosts(text, hosts):
    assert expand_hosts(text) == hosts


@pytest.mark.parametrize(
    "text", ["", "a,", "n[1-2", "n1-2]", "n[a-b]", "n[[1]]", "n[1-]", "n[3-1]", "n[]"]
)
def test_a_list_of_hosts_that_is_none(text):
    with pytest.raises(LauncherError, match="Received: "):
        expand_hosts(text)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "no WORLD_SIZE. Received: RANK=1. Set all"),
        ({"WORLD_SIZE": "2"}, "no RANK"),
        (
            {"RANK": "0", "WORLD_SIZE": "2"},
            "no MASTER_ADDR, MASTER_PORT. Received: RANK=0, WORLD_SIZE=2. Set all",
        ),
        (TORCHRUN | {"MASTER_ADDR": ""}, "no MASTER_ADDR"),
        (TORCHRUN | {"RANK": "8"}, "process 8 of 8"),
        (TORCHRUN | {"RANK": "-1"}, "RANK must be a whole number, 0 or more. Received: RANK=-1"),
        (TORCHRUN | {"WORLD_SIZE": "0"}, "process 5 of 0"),
        (TORCHRUN | {"LOCAL_RANK": "4"}, "4 of 4 on its machine"),
        (TORCHRUN | {"LOCAL_RANK": "one"}, "LOCAL_RANK=one"),
        (TORCHRUN | {"WORLD_SIZE": "1"}, "process 5 of 1"),
        (KERAS | {"KERAS_DISTRIBUTION_PROCESS_ID": ""}, "no KERAS_DISTRIBUTION_PROCESS_ID"),
        (KERAS | {ADDRESSES: "a:1,b:1,c:1"}, "3 addresses, 2 processes"),
        (KERAS | {ADDRESSES: "a:1,b"}, "host:port. .* 'b'"),
        (KERAS | {"KERAS_DISTRIBUTION_PROCESS_ID": "2"}, "process 2 of 2"),
        ({"TF_CONFIG": "worker"}, "TF_CONFIG cannot be read. Received: worker"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "TF_CONFIG cannot be read"),
        (
            tf_config("evaluator", 0, worker=["a:1", "b:1"]),
            "task 'evaluator' in a cluster of worker",
        ),
        (tf_config("worker", 0, worker=["a:1", "b:1"], ps=["c:1"]), "in a cluster of ps, worker"),
        (tf_config("worker", 2, worker=["a:1", "b:1"]), "worker 2 of 2"),
        (tf_config("chief", 0, worker=["a:1", "b:1"]), "chief 0 of 0"),
        (slurm(0) | {"SLURM_JOB_ID": ""}, "no SLURM_JOB_ID"),
        (slurm(0) | {"SLURM_STEP_NODELIST": "node01"}, "contradict each other"),
        (slurm(0) | {"SLURM_STEP_TASKS_PER_NODE": "2(x4)"}, "contradict each other"),
        (slurm(0) | {"SLURM_STEP_TASKS_PER_NODE": "2(3),1"}, r"tasks per node .* '2\(3\),1'"),
        (slurm(3) | {"SLURM_LOCALID": "0"}, "srun --distribution=block"),  # dealt out cyclically
    ],
)
def test_what_cannot_be_is_said(environment, message):
    with pytest.raises(LauncherError, match=message):
        detect(environment)
