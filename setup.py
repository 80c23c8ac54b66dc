"""Installs `configs/` and `slurm/` below `pipeline/`; pyproject.toml cannot express it beside a search for packages."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["pipeline*", "data_prep*"]), "pipeline.configs", "pipeline.slurm"],
    package_dir={"pipeline.configs": "configs", "pipeline.slurm": "slurm"},
    package_data={
        "pipeline": ["commands/compare/page.*"],
        "pipeline.configs": ["*.yaml", "**/*.yaml"],
        "pipeline.slurm": ["*.sbatch"],
    },
)
