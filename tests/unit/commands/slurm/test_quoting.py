"""A job gets the user's words as they are, and nothing of the job or launcher around its submission."""

import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.commands.slurm.batch_script import Element, Job
from pipeline.commands.slurm.layout import Layout
from pipeline.commands.slurm.profile import Profile
from pipeline.commands.slurm.submit import main
from pipeline.errors import ConfigError

pytestmark = pytest.mark.usefixtures("home")


def submit(*arguments: str) -> int:
    """`unroll submit lstm.yaml --time 1:00:00 --profile mine.yaml ...`."""
    return main(["lstm.yaml", "--time", "1:00:00", "--profile", "mine.yaml", *arguments])


@pytest.mark.parametrize("inside", [True, False])
def test_a_job_gets_nothing_of_the_job_or_launcher_around_the_submission(
    inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "LOCAL_RANK", "TORCHELASTIC_RUN_ID", "CUDA_VISIBLE_DEVICES")
    job = ("SLURM_JOB_ID", "SLURM_MEM_PER_NODE", "SLURMD_NODENAME")
    kept = ("SLURM_CONF", "MINE", "WANDB_API_KEY")
    for name in (*launcher, *kept, "SBATCH_ACCOUNT", *(job if inside else ())):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr("pipeline.distributed.launch.started_elsewhere", lambda: False)
    assert submit() == 0
    got = {line.partition("=")[0] for line in Path("sbatch.environment").read_text().splitlines()}
    assert got.isdisjoint({*launcher, *job})
    assert got >= set(kept)
    assert ("SBATCH_ACCOUNT" in got) != inside  # a user's own default counts outside of a job


@pytest.mark.parametrize("name", ["a b", "a%j", "a'b", 'a"b', "a$(touch x)", "a;b", "ä", "a`b`", "a#b", "a\\b"])
def test_a_name_that_sbatch_would_split_or_expand_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected letters, digits and"):
        submit("--run", name)
    assert not Path("sbatch.script").exists()
    assert not Path("runs").exists()


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_of_the_user_is_executed_by_the_script(text: str, home: Path) -> None:
    """The arguments and variables of a job reach `unroll` as they are, whatever they contain."""
    value = f"{text}$(touch executed)`touch executed`; touch executed; '"
    element = Element(Path("runs/a"), ["a.yaml", "--model.init_args.x", value])
    job = Job("a", [element], Layout(1, 1, 0, 1), "1:00:00", 120, "unroll", home)
    script = job.script(Profile(environment={"A": value}, modules=[value]))
    (home / "show.sh").write_text('printf "%s\\0" "$A" "$@" > shown\n')
    shown = script.rpartition("\n. ")[0] + "\n. ./show.sh\n"
    prelude = "module() { :; }\n"
    ran = subprocess.run(["bash", "-s"], input=prelude + shown, text=True, capture_output=True, cwd=home)
    assert ran.returncode == 0, ran.stderr
    assert (home / "shown").read_bytes().decode().split("\0")[:-1] == [value, *element.arguments]
    assert not (home / "executed").exists()


@pytest.mark.parametrize("name", ["A B", "1A", "A=B", "A\nB", "Ä"])
def test_a_variable_with_another_name_is_refused(name: str) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"environment": {name: "x"}}))
    with pytest.raises(ConfigError, match="expected names of variables"):
        submit()
