"""Several processes as queues and people start them: refused, stopped, killed, standing still."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_distributed import ENVIRONMENT, ROOT, free_port, together

pytestmark = pytest.mark.processes
ENDLESS = ["--steps=100000", "--eval_every=100000", "--checkpoint_every=100000"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for runs, with a compilation cache and tools that stand for a cluster's."""
    folder = tmp_path_factory.mktemp("lost")
    tools = folder / "tools"
    tools.mkdir()
    # Starts the tasks of a step as srun does, hands signals on, and exits with the highest code.
    srun = """
        while [ "${1#-}" != "$1" ]; do shift; done
        export SLURM_STEP_NODELIST=127.0.0.1
        trap 'kill -USR1 $tasks' USR1
        for i in $(seq 0 $((SLURM_NTASKS - 1))); do
          SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & tasks="$tasks $!"
        done
        code=0
        for task in $tasks; do
          while kill -0 $task 2> /dev/null; do wait $task; one=$?; done
          wait $task 2> /dev/null; one=$?
          [ $one -gt $code ] && [ $one -ne 127 ] && code=$one
        done
        exit $code
    """
    for name, text in (
        ("srun", srun),
        ("ssh", 'shift; exec bash -c "$1"'),
        ("scontrol", f'echo "$@" >> {folder / "requeued"}'),
        ("python", f'exec {sys.executable} "$@"'),
    ):
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    return folder


def flags(place, run, *more):
    return [
        "--experiment=classification",
        "--model=mlp",
        "--optimizer=sgd",
        "--log_every=20",
        f"--workdir={place / run}",
        f"--data_dir={place / 'data'}",
        f"--compilation_cache={place / 'cache'}",
        *more,
    ]


def begin(command, **variables):
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env={k: v for k, v in (ENVIRONMENT | variables).items() if k != "XLA_FLAGS"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def pair(place, run, *more, each=((), ())):
    """Two processes of the launcher."""
    launcher, port = [sys.executable, ROOT / "launch.py"], free_port()
    where = f"--distributed=127.0.0.1:{port},2"
    return [
        begin([*launcher, *flags(place, run, *more, *each[i]), f"{where},{i}"]) for i in range(2)
    ]


def ended(processes, seconds=180):
    """The exit codes of processes, and the last line of each."""
    printed = [one.communicate(timeout=seconds)[0] for one in processes]
    lines = [(text.strip().splitlines() or [""])[-1] for text in printed]
    return [one.returncode for one in processes], lines


def until_it_trains(run, processes, lines=3):
    """Waits until a run has logged some lines."""
    log, until = run / "metrics.jsonl", time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < lines:
        assert time.monotonic() < until and all(one.poll() is None for one in processes)
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("lost", [0, 1])
def test_one_that_is_gone_ends_the_other_with_its_name(place, number, lost):
    processes = pair(place, f"lost-{number.name}-{lost}", *ENDLESS)
    try:
        until_it_trains(place / f"lost-{number.name}-{lost}", processes)
        processes[lost].send_signal(number)
        began = time.monotonic()
        (code,), (line,) = ended([processes[1 - lost]])
        assert time.monotonic() - began < 60
        assert code == 1 and line.startswith(f"error: process {lost} of 2 ("), line
    finally:
        processes[lost].kill()
        processes[lost].communicate()


@pytest.mark.parametrize("told", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM], ids=["USR1", "TERM"])
def test_a_signal_to_one_stops_both_saved_and_both_go_on(place, told, number):
    run = place / f"signal-{told}-{number.name}"
    steps = ["--steps=6000", "--eval_every=3000"]
    processes = pair(place, run.name, *steps)
    until_it_trains(run, processes)
    processes[told].send_signal(number)
    codes, _ = ended(processes, 60)
    assert codes == [128 + number] * 2
    (saved,) = (run / "checkpoints" / "latest").iterdir()
    assert 60 < int(saved.name) < 6000 and not (run / "result.json").exists()
    goes_on = pair(place, run.name, *steps)
    until_it_trains(run, goes_on, len((run / "metrics.jsonl").read_text().splitlines()) + 2)
    goes_on[told].send_signal(number)
    assert ended(goes_on, 60)[0] == [128 + number] * 2
    logged = [json.loads(x)["step"] for x in (run / "metrics.jsonl").read_text().splitlines()]
    assert logged == sorted(set(logged))


@pytest.mark.parametrize(
    "each, said",
    [
        ((["--log_every=20"], ["--log_every=10"]), "differ in --log_every: 10, not 20"),
        ((["--parallel=pmap"],) * 2, "--parallel=pmap"),
        ((["--batch_size=31"],) * 2, "--batch_size=31"),
        ((["--dataset=folder:/nowhere"],) * 2, "/nowhere"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_2(place, each, said):
    codes, lines = ended(pair(place, "refused", "--steps=2", each=each))
    assert codes == [2, 2] and all(said in line for line in lines)
    assert not (place / "refused").exists()


def test_one_that_fails_alone_tells_the_other_why(place):
    (place / "readable").mkdir()
    for kind in ("a", "b"):
        shutil.copytree(ROOT / "docs" / "studies", place / "readable" / kind, dirs_exist_ok=True)
    each = ([], ["--data_dir=/dev/null/data"])
    codes, lines = ended(pair(place, "failing", "--steps=2", each=each))
    assert codes == [2, 2]
    assert "/dev/null/data" in lines[1]
    assert lines[0].startswith("error: process 1 of 2 (") and "/dev/null/data" in lines[0]


def test_one_that_does_not_come_is_not_waited_for(place):
    port = free_port()
    where = f"--distributed=127.0.0.1:{port},2"
    for index in range(2):
        command = [sys.executable, ROOT / "launch.py", *flags(place, "early")]
        one = begin([*command, f"{where},{index}", "--join_timeout=5"])
        (code,), (line,) = ended([one], 60)
        assert code == 2 and "--join_timeout=5" in line and str(port) in line
    auto = begin([sys.executable, ROOT / "launch.py", *flags(place, "early"), "--distributed=auto"])
    (code,), (line,) = ended([auto], 60)
    assert code == 2 and "HOST:PORT,N,I" in line


def test_a_folder_that_is_not_shared_is_refused(place):
    work = {"launch": [flags(place, "apart", "--steps=2")], "blind": 1}
    printed = together(work, place, codes=(2, 2))
    assert all("process 1 of 2" in text and "a disk that all share" in text for text in printed)
    assert not (place / "apart").exists()


def test_slurm_starts_stops_and_requeues_it(place):
    variables = {
        "PATH": f"{place / 'tools'}:{os.environ['PATH']}",
        "FOLDER": str(place / "slurm"),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NTASKS": "2",
    }
    script = ["bash", ROOT / "cluster" / "train.sbatch"]
    job = begin([*script, *flags(place, "slurm", *ENDLESS)], **variables)
    until_it_trains(place / "slurm", [job])
    # --signal=USR1@120 goes to the processes of srun, not to the script.
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGUSR1)
    assert ended([job], 60)[0] == [138]
    assert (place / "requeued").read_text() == f"requeue {os.getpid()}\n"
    # The same command goes on, under the limit that it had.
    job = begin([*script, *flags(place, "slurm", *ENDLESS)], **variables)
    until_it_trains(place / "slurm", [job], 6)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGUSR1)
    text = job.communicate(timeout=60)[0]
    assert job.returncode == 138 and "going on after step" in text and "process  host" in text


def test_ssh_starts_it_and_one_signal_stops_all(place):
    variables = {"PATH": f"{place / 'tools'}:{os.environ['PATH']}", "HOSTS": "127.0.0.1 127.0.0.1"}
    script = [ROOT / "cluster" / "ssh.sh", *flags(place, "ssh", *ENDLESS)]
    loop = begin(script, **variables, PORT=str(free_port()))
    until_it_trains(place / "ssh", [loop])
    loop.send_signal(signal.SIGTERM)
    assert ended([loop], 60)[0] == [143]
    assert next((place / "ssh" / "checkpoints" / "latest").iterdir())


def test_the_command_of_the_jobset_trains(place):
    yaml = pytest.importorskip("yaml")
    jobset = yaml.safe_load((ROOT / "cluster" / "jobset.yaml").read_text())
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    name, subdomain = jobset["metadata"]["name"], job["template"]["spec"]["subdomain"]
    assert variables["FIRST"].rpartition(":")[0] == f"{name}-train-0-0.{subdomain}"
    assert int(variables["PROCESSES"]) == job["completions"] == job["parallelism"]
    *shell, text = container["command"]
    extra = " ".join(flags(place, "jobset", "--steps=40"))
    text = text.replace("--workdir=/runs/large", "").replace("--experiment=classification", extra)
    variables |= {"FIRST": f"127.0.0.1:{free_port()}", "PATH": f"{place / 'tools'}:/usr/bin:/bin"}
    pods = [begin([*shell, text], **variables, JOB_COMPLETION_INDEX=str(i)) for i in range(2)]
    assert ended(pods)[0] == [0, 0]
    assert (place / "jobset" / "result.json").exists()


OLD = runpy.run_path(str(ROOT / "tests" / "fixtures" / "generate_old_runs.py"))
# What mixes the examples of a batch is among them: batch statistics, mixup, mining of triplets.
MORE = {"classification": ["--mixup=0.5"], "language": ["--batch_size=4"]}
TRAINED = sorted(OLD["FLAGS"].keys() - {"input_optimization"})
PREDICTING = sorted(set(TRAINED) - {"filtering", "language"})


@pytest.mark.parametrize("name", TRAINED)
def test_every_experiment_ends_as_in_one_process(tmp_path, name):
    OLD["write_data"](tmp_path / "own")
    once = ["--steps=4", "--optimizer=sgd", "--learning_rate=0.01", "--data_dir=prepared"]
    cache = "--compilation_cache=cache"
    for count in (1, 2):
        run = ["--checkpoint=" + str(count), cache]
        given = [*OLD["FLAGS"][name], *MORE.get(name, ()), *once, cache]
        commands = [
            [f"--experiment={name}", f"--workdir={count}", *given],
            ["--mode=evaluate", *run, f"--workdir={count}/evaluated"],
        ]
        if name in PREDICTING:
            inputs = f"--inputs={tmp_path / 'own' / 'pictures'}"
            commands.append(["--mode=predict", *run, inputs, f"--workdir={count}/predicted"])
        if count == 2:  # what one process trained is evaluated by two
            of_one = ["--checkpoint=1", cache, "--workdir=2/of-one"]
            commands.append(["--mode=evaluate", *of_one])
        together({"launch": commands, "devices": count}, tmp_path, count)
    for file in ("result.json", "evaluated/result.json"):
        one, two = (json.loads((tmp_path / str(n) / file).read_text()) for n in (1, 2))
        assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-3, abs=1e-4, nan_ok=True)
        assert two.get("flops", 0) == pytest.approx(one.get("flops", 0), rel=0.1)
        assert two["examples"] == one["examples"] and two["notes"] == one["notes"]
    one, two = (
        json.loads((tmp_path / file / "result.json").read_text())["metrics"]
        for file in ("1/evaluated", "2/of-one")
    )
    assert two == pytest.approx(one, rel=1e-4, abs=1e-5, nan_ok=True)
    if name in PREDICTING:
        rows = [tmp_path / str(n) / "predicted/predictions.jsonl" for n in (1, 2)]
        one, two = ([json.loads(row) for row in path.read_text().splitlines()] for path in rows)
        assert [row["file"] for row in two] == [row["file"] for row in one] and len(one) == 10
