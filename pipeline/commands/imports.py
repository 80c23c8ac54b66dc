"""Import large packages in less time.

Collecting garbage and importing matplotlib would be a third of the time in which torch and Lightning are imported.
"""

import gc
import importlib
import sys
from types import ModuleType


def load(name: str) -> ModuleType:
    """Import a module without garbage collection, which would visit the objects of all modules again and again.

    Modules live until the process ends. Their objects are therefore exempted from later collections too, which saves
    time in training, and processes that are forked afterwards share their memory.
    """
    if name in sys.modules:
        return importlib.import_module(name)
    collects = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def load_lightning() -> None:
    """Import torch and Lightning, without `matplotlib.pyplot`.

    torchmetrics, a part of Lightning, imports it for `Metric.plot` if it is installed, and has no setting for this. It
    uses what `RequirementCache` finds, which therefore does not find matplotlib during this import. The project's own
    plots do not use torchmetrics.
    """
    from lightning_utilities.core import imports

    cache, name = imports.RequirementCache, "_check_requirement"
    check = getattr(cache, name, None)
    if check is None:  # another version of the library, which may import it
        load("lightning.pytorch")
        return

    def without_matplotlib(self: imports.RequirementCache) -> None:
        check(self)
        self.available = self.available and self.requirement != "matplotlib"

    setattr(cache, name, without_matplotlib)
    try:
        load("torchmetrics")
    finally:
        setattr(cache, name, check)
    load("lightning.pytorch")
