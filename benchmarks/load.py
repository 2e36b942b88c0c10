"""`castnet serve` under load: answers, latencies, memory, and what becomes of requests when it is terminated.

    python benchmarks/load.py MODEL IMAGES

IMAGES is a folder of JPEG files. The clients share the machine with the server, so that its latencies are upper bounds.
"""

import argparse
import atexit
import http.client
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

from castnet import entry
from castnet.imaging.listing import list_images


class Client(threading.Thread):
    """Sends images one after the other over one connection until the server is gone or it is told to stop."""

    def __init__(self, port: int, images: list[bytes], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.images, self.stop = port, images, stop
        self.outcomes: Counter[str] = Counter()
        self.milliseconds: list[float] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self.stop.is_set():
            for image in self.images:
                if self.stop.is_set():
                    break
                start = time.perf_counter()
                try:
                    connection.request("POST", "/inspect", body=image)
                except OSError:
                    self.outcomes["not sent: the server no longer listens"] += 1
                    return
                try:
                    answer = connection.getresponse()
                    answer.read()
                except http.client.RemoteDisconnected:  # not a byte came back on a connection that had been idle
                    self.outcomes["connection closed before the request was read"] += 1
                    return
                except (OSError, http.client.HTTPException) as error:
                    self.outcomes[f"lost: {type(error).__name__}"] += 1
                    return
                self.outcomes[str(answer.status)] += 1
                if answer.status == 200:
                    self.milliseconds.append(1000 * (time.perf_counter() - start))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    args = parser.parse_args()
    images = [file.read_bytes() for file in list_images(args.images).images[:200]]
    if not images:
        parser.error(f"{args.images}: no images there")
    if args.clients < 1 or args.seconds <= 0:
        parser.error("--clients and --seconds: expected more than 0")
    server = subprocess.Popen(
        [sys.executable, "-m", "castnet.cli", "serve", args.model, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.kill)
    assert server.stdout
    found = re.search(r":(\d+)/inspect", server.stdout.readline())
    if not found:  # the server has said why
        sys.exit(server.wait())
    stop = threading.Event()
    clients = [Client(int(found[1]), images[index:] + images[:index], stop) for index in range(args.clients)]
    for client in clients:
        client.start()
    process, memory = psutil.Process(server.pid), []
    for _ in range(10):
        time.sleep(args.seconds / 10)
        memory.append(process.memory_info().rss / 2**20)
    outcomes = sum((client.outcomes for client in clients), Counter())
    latencies = np.concatenate([client.milliseconds for client in clients])
    rate = outcomes["200"] / args.seconds
    print(f"{args.clients} clients, {args.seconds:g} s: {dict(outcomes)}, {rate:,.0f} verdicts/s")
    print("latency " + ", ".join(f"p{p} {np.percentile(latencies, p):.1f} ms" for p in (50, 90, 99)))
    print("memory in MiB, ten times: " + " ".join(f"{size:.0f}" for size in memory))

    start = time.perf_counter()
    server.send_signal(signal.SIGTERM)
    server.wait(timeout=60)
    print(f"SIGTERM under load: the server ended after {time.perf_counter() - start:.2f} s")
    for client in clients:
        client.join(timeout=60)
    print(f"  {dict(sum((client.outcomes for client in clients), Counter()) - outcomes)}")


if __name__ == "__main__":
    entry.guard(main)
