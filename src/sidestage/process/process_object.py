"""multiprocess's process object, without the rest of multiprocess.

Importing the package imports dill. That changes what the test's own ``pickle`` can do, and needs a
directory for temporary files. So this module stands in for the package: it finds submodules where
the package has them, and imports the two that it needs. A test that uses multiprocess imports its
own, whole.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

_package = find_spec("multiprocess")
if _package is None or _package.submodule_search_locations is None:
    raise ModuleNotFoundError("No module named 'multiprocess'", name="multiprocess")
__path__ = list(_package.submodule_search_locations)

BaseProcess: Any = importlib.import_module(f"{__name__}.process").BaseProcess
Popen: Any = importlib.import_module(f"{__name__}.popen_fork").Popen
