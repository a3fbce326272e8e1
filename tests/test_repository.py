"""What the repository promises beside its code: one source of truth for what is needed, nothing of this machine."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import studykit

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
MACHINE = re.compile(r"/(?<![\w+/=.-]/)(?:work|root|home/\w+|Users/\w+|mnt|tmp/\w+)/\w")
REGISTRY = re.compile(
    r"(?:pypi|pythonhosted|npmjs|anaconda|conda-forge|docker|quay|artifactory|nexus|jfrog)\.(?:org|io|com|net)"
    r"|index-ur[l]|https?://(?!127\.)\d+\.\d+"
)


def tracked():
    """Return the text files that are, or with the next commit may be, in the repository."""
    if not (ROOT / ".git").exists():
        return [file for file in ROOT.glob("*") if file.is_file()]
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    files = [ROOT / name for name in dict.fromkeys(names) if name]
    return [file for file in files if file.is_file() and b"\0" not in file.read_bytes()]


def pins():
    """Return the pinned version of each package."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, equals, version = line.partition("==")
            assert equals, f"constraints.txt: {line!r} pins nothing"
            found[canonicalize_name(name)] = version
    return found


def test_environment_yml_holds_nothing_that_pyproject_does_not():
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert content == {
        "name": "studykit",
        "channels": ["conda-forge"],
        "dependencies": ["python=3.11", "pip", {"pip": ["-e .[all]"]}],
    }


def test_torch_is_pinned_to_the_version_with_a_cpu_wheel():
    assert pins()["torch"] == "2.13.0"


@pytest.mark.parametrize("text", [*PROJECT["project"]["dependencies"], *EXTRAS["dev"]])
def test_every_direct_dependency_is_pinned_within_what_it_asks_for(text):
    needed = Requirement(text)
    version = pins()[canonicalize_name(needed.name)]
    assert needed.specifier.contains(version), f"{text} but pinned to {version}"


def test_the_tools_of_this_ecosystem_are_dependencies():
    names = {Requirement(text).name for text in PROJECT["project"]["dependencies"]}
    assert names >= {
        "jupyterlab",
        "torch",
        "transformers",
        "datasets",
        "peft",
        "pandas",
        "plotly",
        "streamlit",
        "papermill",
    }


def test_every_package_that_is_imported_is_named():
    own = {"studykit", "dashboard"}
    installed_as = {"yaml": "pyyaml"} | {
        "tokenizers": "transformers",  # these come with what is named
        "huggingface_hub": "transformers",
        "starlette": "streamlit",
        "IPython": "ipykernel",
        "nbformat": "nbclient",
        "pyarrow": "datasets",
        "pydantic_core": "pydantic",
    }
    needed = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    for file in (*(ROOT / "studykit").rglob("*.py"), *(ROOT / "dashboard").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in {name.partition(".")[0] for name in names} - own - set(sys.stdlib_module_names):
                assert canonicalize_name(installed_as.get(name, name)) in needed, f"{file} imports {name}"


def test_all_extras_are_there_and_all_holds_them():
    assert set(EXTRAS) >= {"dev", "eval", "ray", "track", "vllm", "all"}
    [everything] = EXTRAS["all"]
    assert Requirement(everything).extras == set(EXTRAS) - {"all", "vllm", "deepspeed"}  # with CUDA only; from source


def test_version_and_licence_agree_everywhere():
    assert PROJECT["project"]["version"] == studykit.__version__
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_embedded_models_are_packed_and_small():
    folder = ROOT / "studykit" / "models" / "embedded"
    globs = PROJECT["tool"]["setuptools"]["package-data"]["studykit"]
    packed = {file for glob in globs for file in (ROOT / "studykit").glob(glob) if file.is_file()}
    files = {file for file in folder.rglob("*") if file.is_file()}
    assert files
    assert files <= packed
    assert sum(file.stat().st_size for file in files if file.suffix == ".safetensors") < 13e6


def test_no_file_names_a_folder_of_some_machine_or_a_registry():
    for file in tracked():
        text = file.read_text(encoding="utf-8", errors="replace")
        for found in (MACHINE.search(text), REGISTRY.search(text.lower())):
            assert found is None, f"{file.relative_to(ROOT)} holds {found and found.group()!r}"


@pytest.mark.parametrize("folder", ["studykit", "dashboard", "tests"])
def test_no_file_is_two_rooms(folder):
    for file in (ROOT / folder).rglob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 350, f"{file} is too long to read like a page"


@pytest.mark.parametrize("name", ["utils", "common", "helpers", "manager"])
def test_no_module_is_named_after_nothing(name):
    assert not list((ROOT / "studykit").rglob(f"{name}*")) + list((ROOT / "dashboard").rglob(f"{name}*"))


def test_continuous_integration_runs_what_a_newcomer_types():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("make test") for line in lines)
    assert any(line.startswith("make quickstart") for line in lines)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^quickstart: setup$", makefile, re.MULTILINE)
    assert re.search(r"^test: setup$", makefile, re.MULTILINE)


def test_warnings_are_errors():
    assert PROJECT["tool"]["pytest"]["ini_options"]["filterwarnings"][0] == "error"


def test_the_citation_agrees_with_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["license"]) == (studykit.__version__, PROJECT["project"]["license"])
    assert citation["references"][0]["identifiers"] == [{"type": "other", "value": "arXiv:2606.22942"}]


@pytest.mark.parametrize("has_uv", [False, True])
def test_setting_up_needs_no_uv_uses_it_where_it_is_and_compiles_only_what_is_used(tmp_path, has_uv):
    make = shutil.which("make")
    assert make is not None
    if has_uv:
        (tmp_path / "uv").write_text("#!/bin/sh\n")
        (tmp_path / "uv").chmod(0o755)
    shown = subprocess.run(
        [make, "-n", "-B", "setup"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
    ).stdout
    installs = [line for line in shown.splitlines() if " install " in line]
    assert [" torch" in line for line in installs] == [True, False]
    assert "python -m pip install" in installs[0]
    assert (f"{tmp_path}/uv pip install" if has_uv else "python -m pip install") in installs[1]
    assert all("--no-compile" in line or "/uv pip" in line for line in installs)
    assert "PYTHONDONTWRITEBYTECODE= .venv/bin/python" in shown
