#!/usr/bin/env python3
"""What Kun itself costs where functions cost next to nothing: time and memory by the number of rows.

    benches/bulk_costs.py --kun target/release/kun [--rows 10000,100000,1000000] [--formats parquet,csv,jsonl] [--sql]
                          [--model detect.onnx --counts 200,2000,20000]

Rows have two columns; the function is `hash`, by `kun map` and, with `--sql`, by `kun sql` too (a build with
`--features sql`). Memory is the most that the process had. The same job again, with nothing left to do, is timed too.
With `--model`, so many small pictures go through `detect`. Parquet and pictures are written with pyarrow and Pillow.
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
    done = subprocess.run(["/usr/bin/time", "-f", "%M", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wall = time.time() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return wall, cpu, int(done.stderr.split()[-1]) / 1024, done.stdout


def write(path, rows):
    text = "row {} of a table of texts of some length"
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        columns = {"id": range(rows), "text": [text.format(row) for row in range(rows)]}
        pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=100_000)
        return
    with path.open("w") as file:
        if path.suffix == ".csv":
            file.write("id,text\n")
            file.writelines(f"{row},{text.format(row)}\n" for row in range(rows))
        else:
            file.writelines(json.dumps({"id": row, "text": text.format(row)}) + "\n" for row in range(rows))


def tables(args, folder):
    for ending in args.formats.split(","):
        for rows in map(int, args.rows.split(",")):
            source, out = folder / f"{rows}.{ending}", folder / f"out-{rows}-{ending}.parquet"
            write(source, rows)
            command = [args.kun, "map", str(source), "--with", "hash(id, text) as h", "-o", str(out), "--json", "--progress", "none"]
            ways = {"map": command}
            if args.sql:
                query = f"SELECT id, text, hash(id, text) AS h FROM '{source}'"
                ways["sql"] = [args.kun, "sql", query, "-o", str(folder / f"sql-{rows}-{ending}.parquet")]
            for way, command in ways.items():
                wall, cpu, peak, told = timed(command)
                again = ""
                if way == "map":
                    report = json.loads(told)
                    assert report["rows"] == rows and report["failed_rows"] == 0, report
                    seconds, _, _, told = timed(command)
                    assert json.loads(told)["was_complete"], told
                    again = f"; again {seconds:.2f} s"
                print(f"{way} {ending:<8}{rows:>9} rows: {wall:6.2f} s, {wall / rows * 1e6:6.2f} us a row "
                      f"(CPU {cpu / rows * 1e6:5.2f}), {peak:6.1f} MiB{again}", flush=True)


def pictures(args, folder):
    from PIL import Image

    for count in map(int, args.counts.split(",")):
        source, out = folder / f"pictures-{count}", folder / f"things-{count}.parquet"
        source.mkdir()
        for at in range(count):
            Image.new("RGB", (320, 240), (at % 256, at // 256 % 256, 90)).save(source / f"{at:06}.jpg")
        call = f"detect(image, model = '{args.model}') as things"
        command = [args.kun, "map", str(source), "--with", call, "-o", str(out), "--json", "--progress", "none"]
        _, _, peak, told = timed(command)
        print(f"{count:>9} pictures: {json.loads(told)['rows_per_s']:.1f} a second, {peak:6.1f} MiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kun", required=True)
    parser.add_argument("--rows", default="10000,100000,1000000")
    parser.add_argument("--formats", default="parquet,csv,jsonl")
    parser.add_argument("--sql", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--counts", default="200,2000,20000")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tables(args, pathlib.Path(name))
        if args.model:
            pictures(args, pathlib.Path(name))


if __name__ == "__main__":
    main()
