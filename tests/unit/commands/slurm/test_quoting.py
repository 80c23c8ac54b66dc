"""A job gets the user's words as they are, and nothing of the job or launcher around its submission."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import cli
from pipeline.commands.slurm.batch_script import TRAIN, Element, Job
from pipeline.commands.slurm.layout import Layout
from pipeline.commands.slurm.profile import Profile
from pipeline.commands.slurm.submit import main
from pipeline.errors import ConfigError

pytestmark = pytest.mark.usefixtures("home")


def submit(*arguments: str) -> int:
    """`unroll submit lstm.yaml --time 1:00:00 --profile mine.yaml ...`."""
    return main(["lstm.yaml", "--time", "1:00:00", "--profile", "mine.yaml", *arguments])


LAUNCHER = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "3"}


@pytest.mark.parametrize("inside", [True, False])
def test_a_job_gets_nothing_of_the_job_or_launcher_around_the_submission(
    inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = {**LAUNCHER, "MASTER_ADDR": "nowhere", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x"}
    job = ("SLURM_JOB_ID", "SLURM_MEM_PER_NODE", "SLURMD_NODENAME")
    kept = ("SLURM_CONF", "MINE", "WANDB_API_KEY", "LOCAL_SCRATCH")
    for name in (*kept, "SBATCH_ACCOUNT", *(job if inside else ())):
        monkeypatch.setenv(name, "1")
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    assert submit("--nodes", "2", "--tasks-per-node", "4") == 0
    got = {line.partition("=")[0] for line in Path("sbatch.environment").read_text().splitlines()}
    assert got.isdisjoint({*launcher, *job})
    assert got >= set(kept)
    assert ("SBATCH_ACCOUNT" in got) != inside  # a user's own default counts outside of a job


def test_an_error_is_printed_where_a_launcher_calls_this_process_the_third(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in LAUNCHER.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["submit", "lstm.yaml", "--time", "none"]) == 2
    assert "--time=none: expected MM" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a b", "a%j", "a'b", 'a"b', "a$(touch x)", "a;b", "ä", "a`b`", "a#b", "a\\b", "a\nb"])
def test_a_name_that_sbatch_would_split_or_expand_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected letters, digits and|expected a name"):
        submit("--run", name)
    assert not Path("sbatch.script").exists()
    assert not Path("runs").exists()


@pytest.mark.parametrize("place", ["a b", "a%j", "a#b", "ä"])
def test_a_directory_that_sbatch_would_split_or_expand_is_refused(
    place: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / place).mkdir()
    monkeypatch.chdir(home / place)
    with pytest.raises(ConfigError, match="expected letters, digits and"):
        main([str(home / "lstm.yaml"), "--time", "1:00:00"])


@pytest.mark.parametrize("key", ["partition", "account", "qos"])
@pytest.mark.parametrize("value", ["a b", "a --exclusive", "a'b", 'a"b', "a\n#SBATCH --wrap=x", "ä", "a;b", "a#b"])
def test_a_key_of_a_profile_that_sbatch_would_split_is_refused(key: str, value: str) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({key: value}))
    with pytest.raises(ConfigError, match="expected letters, digits and"):
        submit()


@pytest.mark.parametrize("directive", ["--comment=a\ntouch x", "--comment=ä", "--comment=a\tb", "--comment=\x7f"])
def test_a_directive_that_ends_its_line_is_refused(directive: str) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"directives": [directive]}))
    with pytest.raises(ConfigError, match="expected printable ASCII characters"):
        submit()


@pytest.mark.parametrize("workers", ["'8 --exclusive'", "'8\n'", "ä"])
def test_a_number_of_workers_that_sbatch_would_split_is_refused(workers: str) -> None:
    with pytest.raises(ConfigError, match="expected letters, digits and"):
        submit("--prepare", f"text a --output later --workers {workers}", "--", "--data.init_args.dataset", "later")


@pytest.mark.parametrize("character", ["\0", "\r\n", "\udcff"])
def test_text_that_sbatch_cannot_carry_is_refused(character: str) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"environment": {"A": "x"}}).replace("x", json.dumps(f"a{character}")))
    with pytest.raises(ConfigError, match="expected text"):
        submit()
    assert not Path("runs").exists()


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_text_of_the_user_is_executed_by_the_script(text: str, home: Path) -> None:
    """The arguments, variables and modules of a job arrive as they are, whatever they contain."""
    value = f"{text}$(touch executed)`touch executed`; touch executed; '\"\\".replace("\r\n", "")
    container = shlex.join(["/bin/echo", value]) if text.isprintable() else "/bin/echo x"
    words = ["a.yaml", "--model.init_args.x", value]
    job = Job("a", [Element(Path("runs/a"), words)], Layout(1, 1, 0, 1), "1:00:00", 120, f"{container} unroll", home)
    script = job.script(Profile(environment={"A": value}, modules=[value]))
    for name, command in NODE.items():
        (home / "bin" / name).write_text(f"#!/bin/bash\n{command}\n")
        (home / "bin" / name).chmod(0o755)
    (home / "value").write_text(value, newline="")
    loaded = "module() { printf '%s\\0' \"$@\" > module; }\n"
    environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1"}
    environment |= {"SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NODELIST": "n1"}
    with (home / "out").open("w") as out:
        (home / "script").write_text(loaded + script, newline="")
        subprocess.run(["bash", "script"], stdout=out, stderr=out, cwd=home, env=environment, check=True)
    got = (home / "got").read_bytes().decode().split("\0")[:-1]
    assert got == [value, *shlex.split(container), "unroll", "fit", "--config", *words]
    assert (home / "module").read_bytes().decode().split("\0")[:-1] == ["load", value]
    assert not (home / "executed").exists()


NODE = {  # Slurm's commands on a node; the log contains the user's text, too
    "srun": r"""while [[ $1 = --nodes* || $1 = --ntasks* || $1 = --cpus* ]]; do shift; done
printf '%s\0' "$A" "$@" > got
printf 'run %s: continuing at step 3\n' "$(cat value)"
cat value""",
    "scontrol": "echo JobId=7 JobState=RUNNING Restarts=0 TRES=cpu=1",
}


@pytest.mark.parametrize("name", ["UNROLL_FAILURES", "UNROLL_RESTARTS", "UNROLL_BACKOFF"])
def test_a_limit_that_is_no_number_is_not_evaluated(name: str, home: Path) -> None:
    (home / "bin" / "scontrol").write_text(f"#!/bin/bash\n{NODE['scontrol']}\n")
    (home / "bin" / "scontrol").chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", name: "a[$(touch executed)]"}
    with (home / "out").open("w") as out:
        ran = subprocess.run(["bash", TRAIN, "a.yaml"], stdout=out, stderr=out, cwd=home, env=environment)
    assert ran.returncode == 2
    assert f"{name}=a[$(touch executed)]: expected a number" in (home / "out").read_text()
    assert not (home / "executed").exists()


@pytest.mark.parametrize("name", ["A B", "1A", "A=B", "A\nB", "Ä"])
def test_a_variable_with_another_name_is_refused(name: str) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"environment": {name: "x"}}))
    with pytest.raises(ConfigError, match="expected names of variables"):
        submit()
