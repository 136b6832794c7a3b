"""Imports go one way, names mean one thing, and the command starts without torch."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import torch_bregman

ROOT = Path(torch_bregman.__path__[0])
ORDER = (
    *("distributed", "views", "graph", "linalg", "regularizers", "layers", "metrics", "models", "data", "rules"),
    *("init", "optim", "groups", "unit_groups", "schedulers", "integrations", "compaction", "multilevel", "train"),
    *("experiments", "sweeps", "report", "cli", "__main__"),
)
"""A file may import only what stands before its own part, or within it."""

FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
PACKAGES = ["torch_bregman"] + [
    found.name for found in pkgutil.walk_packages(torch_bregman.__path__, prefix="torch_bregman.") if found.ispkg
]


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part(module):
    """Return the first name below the package."""
    return module.split(".")[1]


def imported(source, module, is_package=False):
    """Return the modules of the package that a source imports anywhere, functions and type checking included."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= _from(node, module, is_package)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return {name for name in names if name.startswith("torch_bregman.")}


def _from(node, module, is_package):
    base = node.module or ""
    if node.level:
        home = module.split(".")[: -node.level + 1 or None] if is_package else module.split(".")[: -node.level]
        base = ".".join([*home, base] if base else home)
    if base != "torch_bregman":
        return {base}
    return {_home(alias.name) for alias in node.names}


def _home(name):
    """Return where a name of the root package lives: itself a part, or re-exported from one."""
    if name in ORDER:
        return f"torch_bregman.{name}"
    return getattr(getattr(torch_bregman, name), "__module__", "torch_bregman")


def offences(source, module, is_package=False):
    """Return what a source may not import."""
    own = ORDER.index(part(module))
    return sorted(name for name in imported(source, module, is_package) if ORDER.index(part(name)) > own)


def test_every_part_has_its_place():
    parts = {part(module_name(path)) for path in FILES}
    assert parts <= set(ORDER), f"say in ORDER where {sorted(parts - set(ORDER))} stands"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    found = offences(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")
    assert not found, f"{path.relative_to(ROOT)} may not import {found}: these stand below it"


@pytest.mark.parametrize(
    ("source", "module", "wrong"),
    [
        ("import torch_bregman.optim", "torch_bregman.views", ["torch_bregman.optim"]),
        ("from torch_bregman.optim.linbreg import X", "torch_bregman.views", ["torch_bregman.optim.linbreg"]),
        ("from torch_bregman import optim", "torch_bregman.views", ["torch_bregman.optim"]),
        ("from torch_bregman import __version__", "torch_bregman.views", []),
        ("def f():\n    from torch_bregman.report import g", "torch_bregman.train.loop", ["torch_bregman.report"]),
        ("from ..report import g", "torch_bregman.train.loop", ["torch_bregman.report"]),
        ("from . import g", "torch_bregman.train.loop", []),
        ("from .. import report", "torch_bregman.train.loop", ["torch_bregman.report"]),
        ("import importlib\nimportlib.import_module('torch_bregman.cli')", "torch_bregman.data", ["torch_bregman.cli"]),
        ("from torch_bregman.train import g", "torch_bregman.train.loop", []),
        ("from torch_bregman.views import View", "torch_bregman.report.page", []),
    ],
)
def test_the_rule_itself(source, module, wrong):
    assert offences(source, module) == wrong


@pytest.mark.parametrize("name", PACKAGES)
def test_no_submodule_hides_a_name_exported_beside_it(name):
    package = importlib.import_module(name)
    submodules = {found.name for found in pkgutil.iter_modules(package.__path__)}
    exported = _bound_by_import(package) | set(getattr(package, "__all__", ()))
    shared = {both for both in submodules & exported if not _is_the_submodule(package, both)}
    assert not shared, f"{name}: rename the module or the function {sorted(shared)}"


def _bound_by_import(package):
    """Return the names that an `__init__` takes from other modules, but for the modules themselves."""
    nodes = ast.walk(ast.parse(Path(package.__file__).read_text(encoding="utf-8")))
    taken = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module not in {None, package.__name__}]
    return {alias.asname or alias.name for node in taken for alias in node.names}


def _is_the_submodule(package, name):
    if name in _bound_by_import(package):
        return False
    lazy = vars(package).get("__getattr__")  # importing the submodule may already have hidden the lazy name
    try:
        value = lazy(name) if lazy else getattr(package, name)
    except AttributeError:
        value = getattr(package, name)
    return isinstance(value, types.ModuleType) and value.__name__ == f"{package.__name__}.{name}"


@pytest.mark.parametrize("name", PACKAGES)
def test_what_a_package_promises_is_there(name):
    package = importlib.import_module(name)
    exported = getattr(package, "__all__", ())
    assert len(set(exported)) == len(exported)
    assert all(hasattr(package, promised) for promised in exported)


@pytest.mark.parametrize("module", ["torch_bregman", "torch_bregman.cli", "torch_bregman.__main__"])
def test_the_command_starts_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or f"import {module} imports torch"
