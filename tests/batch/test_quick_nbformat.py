"""The slow grammar stays out of the import of nbformat, and of nothing else."""

import subprocess
import sys

CODE = """
import sys
from studykit.batch.quick_nbformat import import_nbformat
import_nbformat()
assert {"nbformat", "jsonschema"} <= set(sys.modules)
assert "rfc3987_syntax" not in sys.modules  # neither imported nor blocked
import_nbformat()
"""


def test_nbformat_is_imported_without_the_grammar_which_others_may_still_import():
    subprocess.run([sys.executable, "-c", CODE], check=True)
