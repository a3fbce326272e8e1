"""Imports that cost more than they give, left out.

`jsonschema`, which checks notebooks for nbformat, papermill and plotly alike, imports a grammar of international web
addresses if it is installed. Building that grammar takes about a second in every process; no notebook holds anything
that would be checked against it. `jsonschema` takes its absence as it does where the package is not installed.
"""

import sys


def skip_address_grammar() -> None:
    """Make `import rfc3987_syntax` fail at once; to be called before nbformat, papermill or a plotly display."""
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
