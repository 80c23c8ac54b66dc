"""How pytest checks shapes and types at run time: a whole number is a float too, as in static typing."""

import warnings

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep585DeprecationWarning

warnings.filterwarnings("ignore", category=BeartypeDecorHintPep585DeprecationWarning)
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
