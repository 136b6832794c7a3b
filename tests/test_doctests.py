"""Every example of every docstring of the package runs; modules are found by walking the package."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
import torch

import torch_bregman

MODULES = ["torch_bregman"] + [
    module.name for module in pkgutil.walk_packages(torch_bregman.__path__, prefix="torch_bregman.")
]
DEFINITIONS = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def written(path):
    """Return the qualified names of all that has an example in its docstring, as the source has it."""
    names = set()

    def visit(node, name):
        if isinstance(node, ast.Module | DEFINITIONS) and ">>>" in (ast.get_docstring(node) or ""):
            names.add(".".join(name))
        for child in ast.iter_child_nodes(node):
            visit(child, (*name, child.name) if isinstance(child, DEFINITIONS) else name)

    visit(ast.parse(path.read_text(encoding="utf-8")), ())
    return names


class Finder(doctest.DocTestFinder):
    """Finds examples behind decorators such as `torch.no_grad()` too, whose wrappers were made in another module."""

    def _from_module(self, module, object):
        home = getattr(object, "__module__", None)
        return home == module.__name__ if isinstance(home, str) else super()._from_module(module, object)


def examples(module):
    """Return the examples that Python finds in a module, by qualified name."""
    found = Finder(exclude_empty=True).find(module, module.__name__)
    return {test.name[len(module.__name__) + 1 :]: test for test in found if test.examples}


def test_the_walk_reaches_every_file():
    files = {path for path in Path(torch_bregman.__path__[0]).rglob("*.py") if path.name != "__init__.py"}
    assert {Path(inspect.getfile(importlib.import_module(name))) for name in MODULES} >= files


@pytest.mark.parametrize("name", MODULES)
def test_no_example_is_missed(name):
    module = importlib.import_module(name)
    assert written(Path(inspect.getfile(module))) == set(examples(module))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for test in examples(importlib.import_module(name)).values():
        report: list[str] = []
        with torch.random.fork_rng():
            failed, _ = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
        assert not failed, "".join(report)
