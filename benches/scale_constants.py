#!/usr/bin/env python3
"""Measures the constants of benches/scale_model.py on this machine.

    python3 benches/scale_constants.py target/release/kun
    python3 benches/scale_constants.py target/release/kun --moto PATH/TO/moto_server

`kun` must be built with `--features cluster`. Planning, the plan's size, and what a split and an idle executor cost the
scheduler are measured on loopback with the null function `hash`; requests of a split to a bucket are counted in the log
of moto's S3 server, where there is one.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rows_file(path, rows):
    with open(path, "w") as f:
        for n in range(rows):
            f.write(f'{{"id": {n}, "text": "{n:0>40}"}}\n')


class Cluster:
    def __init__(self, kun, folder, executors):
        self.all, self.folder = [], folder
        self.scheduler = self.start([kun, "cluster", "scheduler", "--listen", "127.0.0.1:0"], "scheduler")
        said = self.wait("scheduler", r"df://(\S+)")
        self.address = said.group(1)
        for n in range(executors):
            self.start([kun, "cluster", "executor", "--scheduler", self.address, "--allow", str(folder)], f"e{n}")
        for n in range(executors):
            self.wait(f"e{n}", "Working")

    def start(self, command, name):
        err = open(self.folder / f"{name}.txt", "w")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err, cwd=self.folder)
        self.all.append(process)
        return process

    def wait(self, name, pattern):
        for _ in range(600):
            found = re.search(pattern, (self.folder / f"{name}.txt").read_text())
            if found:
                return found
            time.sleep(0.05)
        sys.exit(f"{name} does not start: {(self.folder / f'{name}.txt').read_text()}")

    def end(self):
        for process in self.all:
            process.kill()
            process.wait()


def planning(kun, folder, result):
    """Seconds of a shard that has nothing to do: planning alone."""
    rows_file(folder / "many.jsonl", 200_000)
    times, counts = [], []
    for rows in (200_000, 20):
        started = time.perf_counter()
        subprocess.run(
            [kun, "map", "many.jsonl", "--with", "hash(id) as h", "-o", f"plan{rows}/", "--split-rows", str(rows),
             "--shard", "99999999/100000000", "--progress", "none"],
            cwd=folder, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
        plan = next((folder / f"plan{rows}/_kun").glob("splits-*.jsonl"))
        counts.append((sum(1 for _ in open(plan)) - 1, plan.stat().st_size))
    splits = counts[1][0] - counts[0][0]
    result["plan_cpu_us_per_split"] = (times[1] - times[0]) / splits * 1e6
    result["plan_bytes_per_split"] = (counts[1][1] - counts[0][1]) / splits


def scheduling(kun, folder, result, executors):
    cluster = Cluster(kun, folder, executors)
    try:
        time.sleep(2)
        before, began = cpu_seconds(cluster.scheduler.pid), time.time()
        time.sleep(20)
        idle = (cpu_seconds(cluster.scheduler.pid) - before) / (time.time() - began)
        result["scheduler_cpu_share_idle"] = idle
        result["schedule_us_per_poll"] = idle / executors * 1e6
        rows_file(folder / "in.jsonl", 50_000)
        before = cpu_seconds(cluster.scheduler.pid)
        report = subprocess.run(
            [kun, "map", "in.jsonl", "--with", "hash(id) as h", "-o", "out/", "--split-rows", "100", "--json",
             "--progress", "none", "--on", f"df://{cluster.address}"],
            cwd=folder, check=True, capture_output=True, text=True)
        report = json.loads(report.stdout)
        result["schedule_us_per_task"] = (cpu_seconds(cluster.scheduler.pid) - before) / report["splits"] * 1e6
        result["tasks"] = report["splits"]
        result["tasks_per_second_with_work"] = report["splits"] / report["seconds"]
    finally:
        cluster.end()


def requests(kun, folder, moto, result):
    port = 50999
    log = open(folder / "moto.txt", "w")
    server = subprocess.Popen([moto, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                urllib.request.urlopen(url, timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        environment = dict(
            os.environ, AWS_ENDPOINT_URL=url, AWS_ALLOW_HTTP="true", AWS_ACCESS_KEY_ID="test",
            AWS_SECRET_ACCESS_KEY="test", AWS_REGION="us-east-1")
        def put(path, body):
            asked = urllib.request.Request(f"{url}/{path}", data=body, method="PUT")
            asked.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, "
                             "SignedHeaders=host, Signature=none")
            asked.add_header("Content-Type", "application/octet-stream")
            urllib.request.urlopen(asked).read()
        put("bucket", b"")
        subprocess.run([kun, "map", "in.jsonl", "--with", "hash(id) as h", "-o", "in.parquet"],
                       cwd=folder, check=True, capture_output=True)
        put("bucket/in/a.parquet", (folder / "in.parquet").read_bytes())
        counts = []
        for n, rows in enumerate((100_000, 2_000)):
            start = (folder / "moto.txt").stat().st_size
            subprocess.run(
                [kun, "map", "s3://bucket/in/", "--columns", "id", "--with", "hash(text) as d", "-o",
                 f"s3://bucket/out{n}/", "--split-rows", str(rows), "--workers", "1", "--progress", "none"],
                cwd=folder, env=environment, check=True, capture_output=True)
            time.sleep(0.5)
            with open(folder / "moto.txt") as f:
                f.seek(start)
                counts.append(Counter(re.findall(r'"(GET|HEAD|PUT|DELETE|POST) ', f.read())))
        result["requests_of_a_job_of_1_split"] = dict(counts[0])
        result["requests_of_a_job_of_50_splits"] = dict(counts[1])
        more = {verb: (counts[1][verb] - counts[0][verb]) / 49 for verb in counts[1]}
        result["requests_per_split"] = more
    finally:
        server.kill()
        server.wait()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kun")
    p.add_argument("--executors", type=int, default=4)
    p.add_argument("--moto", help="moto_server of PyPI's moto[server]")
    a = p.parse_args()
    kun, result = os.path.abspath(a.kun), {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        planning(kun, folder, result)
        scheduling(kun, folder, result, a.executors)
        if a.moto:
            requests(kun, folder, a.moto, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
