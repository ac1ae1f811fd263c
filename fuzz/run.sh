#!/bin/sh
# Builds every fuzz target on stable Rust and runs each for some seconds (default 30): fuzz/run.sh [seconds] [target..]
# Ends with the first crash, whose input is kept in the artifacts folder that libFuzzer names.
set -eu
seconds="${1:-30}"
[ $# -gt 0 ] && shift
here="$(cd "$(dirname "$0")" && pwd)"
base="${CARGO_TARGET_DIR:-$here/../target}"
mkdir -p "$base/fuzz"
out="$(cd "$base/fuzz" && pwd)"
host="$(rustc -vV | sed -n 's/^host: //p')"

# The pass that cargo-fuzz's sanitizer runs use works without a sanitizer, and so without a nightly compiler.
# `--target` keeps the counters out of build scripts, which have no fuzzer to link with.
coverage="-Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    coverage="$coverage -Cllvm-args=-sanitizer-coverage-$option"
done
RUSTFLAGS="$coverage --cfg fuzzing" CARGO_TARGET_DIR="$out" \
    cargo build --release --target "$host" --manifest-path "$here/Cargo.toml" --bins
CARGO_TARGET_DIR="$out" cargo run --release --manifest-path "$here/seeds/Cargo.toml" -- "$out/corpus"

# Files that a target writes, in memory where there is such a folder.
scratch="$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
programs="$out/$host/release"
corpus="$out/corpus"
[ $# -gt 0 ] || set -- gguf safetensors onnx picture sentencepiece tokenizer_json template encoder_folder
for target in "$@"; do
    mkdir -p "$out/artifacts/$target"
    log="$out/$target.log"
    if ! TMPDIR="$scratch" "$programs/$target" "$corpus/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -max_len=65536 -dict="$corpus/$target.dict" -artifact_prefix="$out/artifacts/$target/" \
        -print_final_stats=1 -verbosity=0 2>"$log"; then
        tail -n 60 "$log" >&2
        echo "fuzz: $target failed, see $log" >&2
        exit 1
    fi
    executions="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    echo "fuzz: $target ran $executions inputs in $seconds s"
done
