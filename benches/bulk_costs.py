#!/usr/bin/env python3
"""What `kun map` itself costs: time and memory of a job whose function is next to nothing, by the number of rows.

    benches/bulk_costs.py --kun target/release/kun [--rows 10000,100000,1000000] [--pictures FOLDER --counts 200,2000]

Rows are JSON lines with two columns; the function is `hash`. Memory is the most that the process had (its high-water
mark). The same command again, when there is nothing left to do, is timed too. With `--pictures`, copies of a folder's
pictures go through `detect` as well.
"""
import argparse
import json
import pathlib
import resource
import subprocess
import tempfile
import time


def timed(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.time()
    done = subprocess.run(["/usr/bin/time", "-f", "%M", *command], capture_output=True, text=True, check=True)
    wall = time.time() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return wall, cpu, int(done.stderr.split()[-1]) / 1024, json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kun", required=True)
    parser.add_argument("--rows", default="10000,100000,1000000")
    parser.add_argument("--call", default="hash(id, text) as h")
    parser.add_argument("--pictures", type=pathlib.Path)
    parser.add_argument("--detect", default="detect(image) as things")
    parser.add_argument("--counts", default="200,2000")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        flags = ["--json", "--progress", "none"]
        for rows in map(int, args.rows.split(",")):
            source, out = folder / f"{rows}.jsonl", folder / f"{rows}.parquet"
            with source.open("w") as file:
                for row in range(rows):
                    file.write(json.dumps({"id": row, "text": f"row {row} of a table of texts of some length"}) + "\n")
            command = [args.kun, "map", str(source), "--with", args.call, "-o", str(out), *flags]
            wall, cpu, peak, report = timed(command)
            assert report["rows"] == rows and report["failed_rows"] == 0, report
            again, _, _, report = timed(command)
            assert report["was_complete"], report
            print(f"{rows:>9} rows: {wall:6.2f} s, {wall / rows * 1e6:6.2f} us a row (CPU {cpu / rows * 1e6:5.2f}), "
                  f"{peak:6.1f} MiB; again {again:.2f} s", flush=True)
        if args.pictures:
            pictures = sorted(path for path in args.pictures.iterdir() if path.suffix in (".jpg", ".png"))
            for count in map(int, args.counts.split(",")):
                source, out = folder / f"pictures-{count}", folder / f"things-{count}.parquet"
                source.mkdir()
                for at in range(count):
                    picture = pictures[at % len(pictures)]
                    (source / f"{at:06}{picture.suffix}").write_bytes(picture.read_bytes())
                command = [args.kun, "map", str(source), "--with", args.detect, "--no-dedup", "-o", str(out), *flags]
                wall, _, peak, report = timed(command)
                print(f"{count:>9} pictures: {report['rows_per_s']:.1f} a second, {peak:6.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
