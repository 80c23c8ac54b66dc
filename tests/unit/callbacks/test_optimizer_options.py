"""Options of an optimizer that were changed replace restored ones on every process, or the error is every process's."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline.callbacks.optimizer_options import OptimizerOptions
from pipeline.errors import CheckpointError


def test_a_config_that_the_first_process_cannot_read_ends_all(tmp_path: Path) -> None:
    first = Mock(is_global_zero=True, strategy=Mock(broadcast=lambda found: found))
    with pytest.raises(CheckpointError) as raised:
        OptimizerOptions(tmp_path).replace(first, Mock(), tmp_path / "step-1")
    other = Mock(is_global_zero=False, strategy=Mock(broadcast=lambda _: raised.value))
    with pytest.raises(CheckpointError):
        OptimizerOptions(tmp_path).replace(other, Mock(), tmp_path / "step-1")
