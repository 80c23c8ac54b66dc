"""Lightning's strategies, so that a run is continued exactly and its checkpoints are in the project's own format."""

from pipeline.strategies.data_parallel import DataParallel
from pipeline.strategies.fully_sharded import FullySharded
from pipeline.strategies.sharded import Sharded
from pipeline.strategies.zero import ZeRO

__all__ = ["DataParallel", "FullySharded", "Sharded", "ZeRO"]
