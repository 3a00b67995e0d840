"""Our modules imported in a Python that refuses some packages, or all but some."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.helpers.paths import ROOT

# Imports every module under a finder that refuses some; prints {module: error} for those that fail.
WALKER = """
import importlib, importlib.abc, json, pkgutil, sys
refused, allowed, chosen = json.loads(sys.argv[1])
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in refused or (allowed and top not in allowed and top not in sys.stdlib_module_names):
            raise ModuleNotFoundError(f"refused by the test: {name}", name=name)
sys.meta_path.insert(0, Refuse())
names = list(chosen)
if not names:
    for root in ("collector", "finetune", "closed_loop"):
        names.append(root)
        package = importlib.import_module(root)
        names += [found.name for found in pkgutil.walk_packages(package.__path__, root + ".", onerror=print)]
failed = {}
for name in names:
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = repr(error)
print("\\n" + json.dumps([names, failed]))
"""


def import_all(
    refused: tuple[str, ...] = (), allowed: tuple[str, ...] = (), chosen: tuple[str, ...] = ()
) -> tuple[list[str], dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", WALKER, json.dumps([refused, allowed, chosen])],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    names, failed = json.loads(done.stdout.strip().splitlines()[-1])
    return names, failed
