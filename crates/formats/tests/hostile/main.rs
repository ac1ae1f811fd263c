//! Files made to break a reader: each must end in a typed error that says where and why, without panic and without
//! taking more memory than 8 times the file and 16 MiB.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod folders;
mod gguf;
mod good;
mod onnx;
mod random;
mod safetensors;
mod support;
mod sweep;

#[global_allocator]
static ALLOCATOR: kun_testkit::peak_memory::CountingAllocator = kun_testkit::peak_memory::CountingAllocator;
