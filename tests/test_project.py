"""The project's own files agree with one another."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}


def test_every_requirement_is_locked_at_a_version_it_admits() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for group in project["optional-dependencies"].values() for line in group]
    versions = locked()
    for requirement in map(Requirement, project["dependencies"] + extras):
        if requirement.name != project["name"]:
            assert versions[requirement.name] in requirement.specifier, requirement


def test_conda_takes_python_and_pip_and_everything_else_from_the_lock() -> None:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    by_conda = [entry for entry in dependencies if isinstance(entry, str)]
    assert [re.split("[=<>]", entry)[0] for entry in by_conda] == ["python", "pip"]
    assert dependencies[-1] == {"pip": ["--requirement requirements.txt", "--editable ."]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"{by_conda[0].split('=')[1]}.0" in Requirement(f"python{project['requires-python']}").specifier


LOAD = """
import runpy, sys
path = sys.path[1:]
for script in sys.argv[1:]:
    for name in [name for name in sys.modules if name in ("train", "evaluate") or name.startswith("fault")]:
        del sys.modules[name]
    sys.path[:] = [script.rpartition("/")[0], *path]
    runpy.run_path(script)
"""


def test_every_benchmark_starts_wherever_it_is_called_from(tmp_path: Path) -> None:
    others = ("keras_page.py", "peers.py")  # stand on packages that castnet does without
    scripts = sorted(script for script in (ROOT / "benchmarks").glob("*.py") if script.name not in others)
    loaded = subprocess.run([sys.executable, "-c", LOAD, *scripts], cwd=tmp_path, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
