#!/usr/bin/env bash
# Runs the kernels' tests for 64-bit Arm (NEON with dot products) on an x86-64 Debian machine, under emulation.
#
# rustup's toolchain here may lack the standard library of that target; Debian packages one with its own compiler, which
# is unpacked into a folder of its own (nothing of it is installed). The emulator and the linker are Debian packages too.
set -euo pipefail
cd "$(dirname "$0")/.."

base="${XDG_CACHE_HOME:-$HOME/.cache}/kun/neon"
root="$base/root"
target=aarch64-unknown-linux-gnu

if [ "$(uname -m)" = aarch64 ]; then
  exec cargo test --release -p kun-tensor -p kun-kernels --lib
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "NEON: not run here; it needs Debian's packages and the right to install them" >&2
  exit 0
fi

if ! command -v qemu-aarch64-static >/dev/null || ! command -v aarch64-linux-gnu-gcc >/dev/null; then
  apt-get update -qq
  apt-get install -y -qq qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross >/dev/null
fi
if [ ! -x "$root/usr/bin/rustc" ]; then
  rm -rf "$base/new" && mkdir -p "$base/new/debs"
  dpkg --print-foreign-architectures | grep -qx arm64 || dpkg --add-architecture arm64
  apt-get update -qq
  version=$(apt-cache policy rustc-web | sed -n 's/^  Candidate: //p')
  standard=$(apt-cache depends "libstd-rust-web-dev=$version" | sed -n 's/^  Depends: \(libstd-rust-web-[0-9.]*\)$/\1/p' | head -1)
  llvm=$(apt-cache depends "$standard=$version" | sed -n 's/^  Depends: \(libllvm[0-9]*\)$/\1/p' | head -1)
  (
    cd "$base/new/debs"
    apt-get download -qq "rustc-web=$version" "$standard=$version" "libstd-rust-web-dev=$version" \
      "libstd-rust-web-dev:arm64=$version" "$llvm" 2>/dev/null
  )
  for package in "$base"/new/debs/*.deb; do dpkg -x "$package" "$base/new"; done
  rm -rf "$base/new/debs" "$root" && mv "$base/new" "$root"
fi
cat > "$base/rustc" <<EOF
#!/bin/sh
export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu"
exec "$root/usr/bin/rustc" --sysroot "$root/usr" "\$@"
EOF
chmod +x "$base/rustc"

export RUSTC="$base/rustc" CARGO_TARGET_DIR="$base/target" CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu"
cargo test --release --target "$target" -p kun-kernels --lib
