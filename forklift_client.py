"""The Python client under a name of its own: ``from forklift_client import Client``.

Its source is the package ``app.client``, but ``app`` is what many programs call themselves, and theirs is found first.
So the folder beside this file is loaded as ``forklift_client``, and ``app`` is never imported.
"""

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.client import *  # noqa: F403
else:
    _FOLDER = Path(__file__).with_name("app") / "client"
    _SPEC = importlib.util.spec_from_file_location(
        __name__, _FOLDER / "__init__.py", submodule_search_locations=[str(_FOLDER)]
    )
    # The import system hands out what stands here, not the module that this file began.
    sys.modules[__name__] = importlib.util.module_from_spec(_SPEC)
    _SPEC.loader.exec_module(sys.modules[__name__])
