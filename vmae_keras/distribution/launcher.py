"""Detection of the processes of a job, from the environment variables of its launcher."""

import itertools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass


class LauncherError(ValueError):
    """The launcher's variables are incomplete or contradict each other."""


@dataclass(frozen=True)
class Cluster:
    """The processes of one job, as its launcher describes them to each process.

    Attributes:
        processes: Number of processes.
        process: Rank of this process, 0 .. processes - 1.
        addresses: "host:port" of process 0 only, or of each process in order. The ports are free for the
            backend to listen on.
        local_process: Rank of this process on its machine.
        local_processes: Number of processes on its machine; None if the launcher does not say.
        launcher: Name of the launcher, for display.

    Raises:
        LauncherError: The numbers contradict each other, or an address lacks host or port.
    """

    processes: int
    process: int
    addresses: tuple[str, ...]
    local_process: int
    local_processes: int | None
    launcher: str

    def __post_init__(self) -> None:
        here = self.local_processes or self.processes
        if not 0 <= self.process < self.processes or self.local_process >= here:
            raise LauncherError(
                f"Processes are numbered from 0 to their count less one. Received from {self.launcher}: "
                f"process {self.process} of {self.processes}, {self.local_process} of {here} on its "
                "machine. Start each process with its own number."
            )
        if len(self.addresses) not in (1, self.processes):
            raise LauncherError(
                "There must be one address, the first process's, or one for each process. Received from "
                f"{self.launcher}: {len(self.addresses)} addresses, {self.processes} processes. "
                "Name one or all."
            )
        for address in self.addresses:
            if not re.fullmatch(r".+:\d{1,5}", address):
                raise LauncherError(
                    f"An address must be host:port. Received from {self.launcher}: {address!r}. "
                    "Write it as in node1:12345."
                )


_ALONE = Cluster(1, 0, ("localhost:0",), 0, 1, "a launcher of one process")


def detect(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Return the job that this process belongs to; None if it is a single process.

    The first of these that is set decides: TF_CONFIG, torchrun's variables (RANK, WORLD_SIZE, ..., also
    set by hand), Keras's (KERAS_DISTRIBUTION_...), those of a Slurm step. Empty variables count as unset.

    Raises:
        LauncherError: The variables are incomplete or contradict each other.
    """
    given = {name: value for name, value in environment.items() if value.strip()}
    for read in (_tf_config, _torchrun, _keras, _slurm):
        if cluster := read(given):
            return cluster if cluster.processes > 1 else None
    return None


def _tf_config(given: Mapping[str, str]) -> Cluster | None:
    """Read TF_CONFIG.

    Source: TensorFlow's `TFConfigClusterResolver`, `multi_worker_util.id_in_cluster`.
    """
    if "TF_CONFIG" not in given:
        return None
    try:
        config = json.loads(given["TF_CONFIG"])
        if "cluster" not in config:  # a single process, as in TensorFlow
            return None
        jobs, kind, index = config["cluster"], config["task"]["type"], int(config["task"]["index"])
        chiefs, workers = tuple(jobs.get("chief", ())), tuple(jobs.get("worker", ()))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise LauncherError(
            f"TF_CONFIG cannot be read. Received: {given['TF_CONFIG']}. Write it as in "
            '{"cluster": {"worker": ["node1:12345", "node2:12345"]}, '
            '"task": {"type": "worker", "index": 0}}.'
        ) from None
    if kind not in ("chief", "worker") or "ps" in jobs:
        raise LauncherError(
            "All processes train alike; there is no work for an evaluator or a parameter server. "
            f"Received: TF_CONFIG of task {kind!r} in a cluster of {', '.join(sorted(jobs))}. Start "
            "only workers, one of which may be called chief."
        )
    if not 0 <= index < len(jobs.get(kind, ())):
        raise LauncherError(
            "TF_CONFIG must give this process a place in its cluster. Received: "
            f"{kind} {index} of {len(jobs.get(kind, ()))}. Number each kind from 0."
        )
    process = index + (len(chiefs) if kind == "worker" else 0)
    return _of_all(chiefs + workers, process, "TF_CONFIG")


def _torchrun(given: Mapping[str, str]) -> Cluster | None:
    """Read torchrun's variables. Source: the "Environment Variables" of `torch.distributed.run`."""
    if not {"RANK", "WORLD_SIZE"} & given.keys():
        return None
    process, processes = _numbers(given, "torchrun", "RANK", "WORLD_SIZE")
    if processes == 1 and process == 0:
        return _ALONE
    host = _values(given, "torchrun", "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")[0]
    (port,) = _numbers(given, "torchrun", "MASTER_PORT")
    # In this case torchrun itself listens on the port. PyTorch expects that, but JAX would abort.
    port += given.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    local_process = _numbers(given, "torchrun", "LOCAL_RANK")[0] if "LOCAL_RANK" in given else 0
    local_processes = None
    if "LOCAL_WORLD_SIZE" in given:
        (local_processes,) = _numbers(given, "torchrun", "LOCAL_WORLD_SIZE")
    known = processes if local_processes == processes else 1  # all, if all are on one machine
    host = f"[{host}]" if ":" in host else host
    addresses = tuple(f"{host}:{port + number}" for number in range(known))
    return Cluster(processes, process, addresses, local_process, local_processes, "torchrun")


def _keras(given: Mapping[str, str]) -> Cluster | None:
    """Read Keras's variables. Source: the documentation of `keras.distribution.initialize`."""
    start = "KERAS_DISTRIBUTION_"
    names = tuple(start + name for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID"))
    if not set(names) & given.keys():
        return None
    addresses = tuple(each.strip() for each in _values(given, "Keras", *names)[0].split(","))
    processes, process = _numbers(given, "Keras", *names[1:])
    if len(addresses) == processes and process < processes:
        return _of_all(addresses, process, "Keras")
    return Cluster(processes, process, addresses, 0, None, "Keras")


def _slurm(given: Mapping[str, str]) -> Cluster | None:
    """Read the variables of a Slurm step, whose tasks srun starts.

    Slurm also sets SLURM_NTASKS and SLURM_PROCID=0 for the shell of an sbatch script, and keeps the job's
    SLURM_NTASKS in an interactive shell. Only srun sets the variables that start with SLURM_STEP_.

    Source: Slurm's src/common/env.c; JAX's `SlurmCluster` for the port.
    """
    if "SLURM_STEP_NUM_TASKS" not in given:
        return None
    if given["SLURM_STEP_NUM_TASKS"] == "1":
        return _ALONE
    processes, process, node, local_process, job = _numbers(
        given,
        "Slurm",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_PROCID",
        "SLURM_NODEID",
        "SLURM_LOCALID",
        "SLURM_JOB_ID",
    )
    listed, counted = _values(given, "Slurm", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
    hosts, counts = expand_hosts(listed), _expand_counts(counted)
    if len(hosts) != len(counts) or sum(counts) != processes or node >= len(hosts):
        raise LauncherError(
            "Slurm's variables contradict each other. Received: "
            f"SLURM_STEP_NODELIST={listed}, SLURM_STEP_TASKS_PER_NODE={counted}, "
            f"SLURM_STEP_NUM_TASKS={processes}, SLURM_NODEID={node}. Start a step of its own with srun."
        )
    if sum(counts[:node]) + local_process != process:
        raise LauncherError(
            "The tasks of a node must have consecutive numbers. Received: "
            f"SLURM_PROCID={process}, the task {local_process} of node {node} of {counted} tasks. "
            "Start them with srun --distribution=block."
        )
    ports = 2**12  # as in JAX: one of the last 2^12 ports, by the job's number
    addresses = tuple(
        f"{host}:{65536 - ports + (job + local) % ports}"
        for host, count in zip(hosts, counts, strict=True)
        for local in range(count)
    )
    return Cluster(processes, process, addresses, local_process, counts[node], "Slurm")


def expand_hosts(text: str) -> list[str]:
    """Expand Slurm's short form of a list of hosts, such as "node[01-03,07],gpu1", in order.

    Raises:
        LauncherError: The list does not have this form.
    """
    hosts: list[str] = []
    for entry in re.split(r",(?![^\[]*\])", text):  # at commas outside brackets
        parts = re.findall(r"[^][]+|\[[^][]+\]", entry)
        choices = [_expand_ranges(part[1:-1]) if part[0] == "[" else [part] for part in parts]
        if "".join(parts) != entry or not entry or not all(choices):
            raise LauncherError(
                f"Slurm's list of hosts cannot be read. Received: {text!r}. "
                "Write it as in node[01-03,07],gpu1."
            )
        hosts += map("".join, itertools.product(*choices))
    return hosts


def _expand_ranges(text: str) -> list[str]:
    """Expand "01-03,07" to ["01", "02", "03", "07"]. Return [] if the text does not have this form."""
    numbers = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        first, last = (match[1], match[2] or match[1]) if match else ("1", "0")
        if int(last) < int(first):
            return []
        numbers += [str(each).zfill(len(first)) for each in range(int(first), int(last) + 1)]
    return numbers


def _expand_counts(text: str) -> list[int]:
    """Expand Slurm's short form of a count per node, such as "2(x3),1" to [2, 2, 2, 1]."""
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not match:
            raise LauncherError(
                f"Slurm's tasks per node cannot be read. Received: {text!r}. Write it as in 2(x3),1."
            )
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _of_all(addresses: tuple[str, ...], process: int, launcher: str) -> Cluster:
    """Return a cluster with known addresses, which also tell the processes on each machine."""
    hosts = [address.rpartition(":")[0] for address in addresses]
    host = hosts[process]
    local_process, local_processes = hosts[:process].count(host), hosts.count(host)
    return Cluster(len(addresses), process, addresses, local_process, local_processes, launcher)


def _values(given: Mapping[str, str], launcher: str, *names: str) -> list[str]:
    if missing := [name for name in names if name not in given]:
        received = ", ".join(f"{name}={given[name]}" for name in names if name in given)
        raise LauncherError(
            f"{launcher}'s variables are incomplete: no {', '.join(missing)}. "
            f"Received: {received or 'none of them'}. Set all, or unset them to train in one process."
        )
    return [given[name] for name in names]


def _numbers(given: Mapping[str, str], launcher: str, *names: str) -> list[int]:
    values = _values(given, launcher, *names)
    for name, value in zip(names, values, strict=True):
        if not (value.isascii() and value.isdigit()):
            raise LauncherError(
                f"{name} must be a whole number, 0 or more. Received: {name}={value}. "
                f"Let {launcher} set it, or correct it."
            )
    return [int(value) for value in values]
