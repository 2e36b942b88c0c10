"""Turn pip's installation report into a requirements file of exact versions."""

import json
import sys
from pathlib import Path

# What torch brings in for its GPU build exists for these machines alone; elsewhere torch asks for other packages.
GPU_BUILD = ("nvidia-", "cuda-", "triton")
GPU_MARKER = ' ; sys_platform == "linux" and platform_machine == "x86_64"'

report = json.loads(Path(sys.argv[1]).read_text())
print("# The versions that castnet is tested with; written by `make lock` from pyproject.toml.")
for entry in sorted(report["install"], key=lambda entry: entry["metadata"]["name"].lower()):
    name, version = entry["metadata"]["name"].lower(), entry["metadata"]["version"]
    if name != "castnet":
        print(f"{name}=={version}{GPU_MARKER if name.startswith(GPU_BUILD) else ''}")
