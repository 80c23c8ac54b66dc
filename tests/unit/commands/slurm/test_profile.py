"""Profiles are checked when they are read; times and shared paths when a run is submitted."""

from pathlib import Path

import pytest

from pipeline.commands.slurm import profile as cluster
from pipeline.commands.slurm.profile import Profile, check_shared, file_system_type, read_profile, seconds
from pipeline.errors import ConfigError

MOUNTS = r"""/dev/sda1 / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
server:/home /home nfs4 rw 0 0
lustre /home/big\040data lustre rw 0 0
"""


@pytest.mark.parametrize("file", sorted(cluster.PROFILES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_profiles_of_the_repository_are_read_by_name(file: Path) -> None:
    assert read_profile(file.stem) == read_profile(str(file)) != Profile()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partitoin: gpu", "unknown key 'partitoin'"),
        ("modules: cuda", "modules='cuda': expected list, got str"),
        ("environment: {WANDB_API_KEY: abc}", "WANDB_API_KEY looks like a secret"),
        ("directives: [exclusive]", "expected options that begin with --"),
        ("- gpu", "expected a mapping with keys"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_mistake_in_a_profile_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_profile(str(file))


def test_a_setting_of_tokenizers_is_not_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("environment: {TOKENIZERS_PARALLELISM: 'false'}")
    assert read_profile(str(file)).environment == {"TOKENIZERS_PARALLELISM": "false"}
    for name in ("HF_TOKEN", "API_KEYS", "AWS_SECRET_ACCESS_KEY_ID", "DB_PASSWORD"):
        file.write_text(f"environment: {{{name}: x}}")
        with pytest.raises(ConfigError, match="looks like a secret"):
            read_profile(str(file))


def test_the_error_for_a_missing_profile_lists_the_available_ones() -> None:
    with pytest.raises(ConfigError, match="Choose from example"):
        read_profile("nowhere")


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 300), ("5:30", 330), ("24:00:00", 86400), ("2-12", 216000), ("1-01:02", 90120), ("1-01:02:03", 90123)],
)
def test_a_time_limit_is_read_as_sbatch_reads_it(text: str, value: int) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "1h", "1:2:3:4", "-5"])
def test_another_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected MM"):
        seconds(text)


@pytest.mark.parametrize(
    ("path", "kind"), [("/home/me", "nfs4"), ("/homes", "ext4"), ("/tmp/x", "tmpfs"), ("/home/big data/x", "lustre")]
)
def test_a_path_is_on_the_innermost_file_system(path: str, kind: str) -> None:
    assert file_system_type(Path(path), MOUNTS) == kind


def test_memory_of_one_node_is_not_shared() -> None:
    check_shared([Path("/home/me/run")], Profile(), MOUNTS)
    mounts = f"{MOUNTS}tmpfs /memory tmpfs rw 0 0\n"
    with pytest.raises(ConfigError, match=r"/memory/data is in the memory of this node \(tmpfs\)"):
        check_shared([Path("/home/me/run"), Path("/memory/data")], Profile(), mounts)


def test_only_the_shared_paths_of_a_profile_are_accepted() -> None:
    profile = Profile(shared=["/home", "/lustre"])
    check_shared([Path("/home/me/run"), Path("/lustre/data")], profile, "")
    with pytest.raises(ConfigError, match="/homes/run is not on a shared path"):
        check_shared([Path("/homes/run")], profile, "")
