"""What it costs to make sure that the decoded pixels are those of the images: seconds at the start of every run.

python benchmarks/cache.py data=casting data.root=FOLDER
"""

import argparse
import time
from pathlib import Path
from statistics import median

from ready import composed, made_ready

from castnet import entry
from castnet.data.pixels import pixel_block

REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _, overrides = parser.parse_known_args()
    cfg = composed(*overrides)
    datamodule = made_ready(cfg)
    side, cache = datamodule.block.shape[1], Path(cfg.paths.cache_dir)
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        pixel_block(datamodule.folder.paths, side, cfg.data.resample, cache)
        seconds.append(time.perf_counter() - begin)
    megabytes = datamodule.block.nbytes / 1e6
    print(f"{len(datamodule.block):,} images, {megabytes:,.0f} MB: checked in {median(seconds):.3f} s")


if __name__ == "__main__":
    entry.guard(main)
