"""Lightning's strategies with exact resumption and checkpoints in the project's format."""

from pipeline.distributed.strategies.data_parallel import DataParallel
from pipeline.distributed.strategies.fully_sharded import FullySharded
from pipeline.distributed.strategies.sharded import Sharded
from pipeline.distributed.strategies.zero import ZeRO

__all__ = ["DataParallel", "FullySharded", "Sharded", "ZeRO"]
