"""A batch imports nbformat without the grammar that makes this import slow.

nbformat is imported by papermill, and by plotly to display a figure in a notebook. It imports jsonschema whichever
validator it uses, and that imports `rfc3987_syntax` where it is installed, as it is beside JupyterLab: building the
grammar of international web addresses in it takes about a second in every process, and no notebook is checked against
it. None of these libraries has a switch. `None` in `sys.modules` is Python's way to say that a module is missing, which
jsonschema allows for; it is set during this one import. Done only in the two processes that a cell of a batch
consists of: the cell's (`studykit.batch.execute`) and its kernel, which loads this module as an IPython extension.
"""

import sys
from typing import Any

_GRAMMAR = "rfc3987_syntax"


def import_nbformat() -> None:
    """Import nbformat as if the grammar were not installed, unless either of them is imported already."""
    if _GRAMMAR in sys.modules or "nbformat" in sys.modules:
        return
    sys.modules[_GRAMMAR] = None  # type: ignore[assignment]
    try:
        import nbformat  # noqa: F401
    finally:
        del sys.modules[_GRAMMAR]


def load_ipython_extension(shell: Any) -> None:
    """Do so when a kernel starts."""
    import_nbformat()
