"""Installs `configs/` as `pipeline/configs/`, which pyproject.toml cannot express beside a search for packages."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["pipeline*", "data_prep*"]), "pipeline.configs"],
    package_dir={"pipeline.configs": "configs"},
    package_data={"pipeline": ["commands/compare/page.*"], "pipeline.configs": ["*.yaml", "**/*.yaml"]},
)
