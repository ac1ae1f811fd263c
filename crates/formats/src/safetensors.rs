//! safetensors files, alone or sharded by an index.
