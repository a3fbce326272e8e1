"""A batch imports jsonschema without the grammar that makes this import slow.

nbformat (hence papermill) and plotly's display in a notebook import jsonschema, and that imports `rfc3987_syntax` where
it is installed, as it is beside JupyterLab. Building the grammar of international web addresses in it takes about a
second in every process, and no notebook is checked against it. Neither library has a switch, and nbformat imports
jsonschema whichever validator it uses. `None` in `sys.modules` is Python's way to say that a module is missing, which
jsonschema allows for; it stands there during this one import. Done only in the two processes that a cell of a batch
consists of: the cell's (`studykit.batch.execute`) and its kernel, which loads this module as an IPython extension.
"""

import sys
from typing import Any

_GRAMMAR = "rfc3987_syntax"


def import_jsonschema() -> None:
    """Import jsonschema as if the grammar were not installed, unless either of them is imported already."""
    if _GRAMMAR in sys.modules or "jsonschema" in sys.modules:
        return
    sys.modules[_GRAMMAR] = None  # type: ignore[assignment]
    try:
        import jsonschema  # noqa: F401
    finally:
        del sys.modules[_GRAMMAR]


def load_ipython_extension(shell: Any) -> None:
    """Do so when a kernel starts."""
    import_jsonschema()
