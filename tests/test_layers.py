"""The rooms of the package, ground floor first: imports go downward only, and half of the rooms never import torch."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (
    # plain data, names and files
    "errors",
    "discovery",
    "files",
    "spec",
    "scorers",  # by the names of the scorers a table knows its metrics
    "results",
    "statistics",
    # what a run is made of
    "losses",
    "sources",
    "chat",
    "collate",
    "models",
    "generation",
    "likelihood",
    "samplers",
    "teacher",
    "head",
    "rollouts",
    "methods",
    "data",
    "evaluation",
    "training",
    "study",
    # what was measured, as figures and findings
    "findings",
    "figures",
    # grids of notebooks
    "executors",
    "batch",
    "cli",
    "__main__",
)
"""A room imports from those above it in this list and never from those below."""

TORCH_FREE = (
    "errors",
    "discovery",
    "files",
    "spec",
    "scorers",
    "results",
    "statistics",
    "figures",
    "findings",
    "executors",
    "batch",
    "cli",
    "__main__",
)
HEAVY = ("torch", "transformers", "accelerate", "peft", "datasets")
GIVEN_MODELS = ("spec",)
"""Torch-free rooms whose functions may import something heavy when they are called: a field's function gets a model."""


def room_of(module):
    """Return the room of a dotted name such as `studykit.losses.jsd`; None for the package itself."""
    return module.split(".")[1] if "." in module else None


def module_name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file):
    """Return the studykit modules a file imports anywhere, also inside functions, with the line."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively; say from where"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name for name in inside if is_module(name)] or [node.module or ""]
        else:
            continue
        found += [(name, node.lineno) for name in names if name.partition(".")[0] in ("studykit", *HEAVY)]
    return found


def is_module(name):
    place = ROOT.joinpath(*name.split("."))
    return name.startswith("studykit.") and (place.with_suffix(".py").exists() or place.is_dir())


FILES = sorted((ROOT / "studykit").rglob("*.py"))


def test_every_room_is_in_the_list_and_exists():
    found = {room_of(module_name(file)) for file in FILES} - {None}
    assert found == set(LAYERS)
    assert len(LAYERS) == len(set(LAYERS))


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_imports_go_downward_only(file):
    room = room_of(module_name(file))
    floor = -1 if room is None else LAYERS.index(room)
    for name, line in imported(file):
        other = room_of(name) if name.startswith("studykit.") else None
        if other in (None, room):
            continue
        assert LAYERS.index(other) < floor, f"{file}:{line}: {room} imports {name}, which is above it"


@pytest.mark.parametrize("file", [f for f in FILES if room_of(module_name(f)) in TORCH_FREE], ids=module_name)
def test_a_torch_free_room_names_nothing_heavy_when_it_is_imported(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = [n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)]
    late = {node.lineno for node in inside if isinstance(node, ast.Import | ast.ImportFrom)}
    for name, line in imported(file):
        if name.partition(".")[0] in HEAVY:
            is_late = line in late and room_of(module_name(file)) in GIVEN_MODELS
            assert is_late, f"{file}:{line} imports {name}"
        if line not in late and room_of(name):
            assert room_of(name) in TORCH_FREE, f"{file}:{line} imports {name}, which imports torch"


def loaded_after(code):
    """Return the top-level packages that a fresh interpreter holds after some code."""
    code += "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_torch_free_rooms_load_neither_torch_nor_anything_that_needs_it():
    modules = [module_name(f) for f in FILES if room_of(module_name(f)) in TORCH_FREE]
    loaded = loaded_after("\n".join(f"import {module}" for module in modules))
    assert "pandas" in loaded  # the check sees what it should
    assert not loaded & set(HEAVY)


def test_import_studykit_loads_nothing_heavy():
    loaded = loaded_after("import studykit; assert studykit.__version__")
    assert not loaded & {*HEAVY, "numpy", "pandas", "scipy", "plotly", "pydantic", "typer", "papermill", "streamlit"}


def test_the_command_line_starts_with_nothing_but_its_own():
    loaded = loaded_after("import studykit.cli")
    assert not loaded & {*HEAVY, "numpy", "pandas", "scipy", "plotly", "papermill", "streamlit"}


def test_listing_a_room_imports_none_of_it():
    code = "import sys\nfrom studykit.cli import main\nsys.argv = ['studykit', 'list', 'losses']\n"
    assert "torch" not in loaded_after(code + "try: main()\nexcept SystemExit: pass")


LATE = ["peft", "sympy", "torch._dynamo", "torch.distributed.tensor", "transformers.modeling_utils"]
"""What takes seconds to import, and is needed once a model is loaded."""


def test_notebooks_import_what_models_need_with_the_first_model():
    notebooks = [json.loads(file.read_text(encoding="utf-8")) for file in (ROOT / "notebooks").glob("*.ipynb")]
    lines = [
        line for notebook in notebooks for cell in notebook["cells"] for line in "".join(cell["source"]).split("\n")
    ]
    imports = {line for line in lines if line.startswith(("from ", "import ")) and "studykit" in line}
    assert "from studykit import study as runner" in imports
    loaded = f"import sys\nassert not (late := sys.modules.keys() & set({LATE})), late"
    loaded_after("\n".join([*sorted(imports), "from studykit.study import compare, measure_signals", loaded]))


DASHBOARD = sorted((ROOT / "dashboard").rglob("*.py"))


@pytest.mark.parametrize("file", DASHBOARD, ids=lambda f: str(f.relative_to(ROOT)))
def test_the_dashboard_imports_torch_free_rooms_only(file):
    for name, line in imported(file):
        assert name.startswith("studykit"), f"{file}:{line} imports {name}"
        assert room_of(name) in TORCH_FREE, f"{file}:{line} imports {name}, which imports torch"
