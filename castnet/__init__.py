"""castnet tells defective castings from good ones in photographs."""

import os

# What castnet rests on would report to its makers what it is used for, unless it is told before it is imported.
for _told in ("ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY"):
    os.environ.setdefault(_told, "1")
for _told in ("RAY_USAGE_STATS_ENABLED", "WANDB_ERROR_REPORTING"):
    os.environ.setdefault(_told, "0")
