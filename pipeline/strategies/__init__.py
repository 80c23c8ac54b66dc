"""Lightning's strategies that divide the model itself, saving and loading in the project's own format."""

from pipeline.strategies.fully_sharded import FullySharded
from pipeline.strategies.sharded import Sharded
from pipeline.strategies.zero import ZeRO

__all__ = ["FullySharded", "Sharded", "ZeRO"]
