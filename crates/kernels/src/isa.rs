//! Which instruction set this machine runs, asked once.

use std::sync::OnceLock;

/// An instruction-set level with its own kernels, worst to best within an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, on every machine.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// [`Isa::Avx512`] with BF16 dot products.
    Avx512Bf16,
    /// NEON with the `dotprod` and `fp16` extensions.
    Neon,
}

impl Isa {
    /// The best level of this machine.
    pub fn detect() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Isa::available().last().copied().unwrap_or(Isa::Scalar))
    }

    /// Every level of this machine, worst to best; tests run each.
    pub fn available() -> Vec<Isa> {
        let mut levels = vec![Isa::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                levels.push(Isa::Avx2);
                if has!("avx512f")
                    && has!("avx512bw")
                    && has!("avx512dq")
                    && has!("avx512vl")
                    && has!("avx512vnni")
                {
                    levels.push(Isa::Avx512);
                    if has!("avx512bf16") {
                        levels.push(Isa::Avx512Bf16);
                    }
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod")
            && std::arch::is_aarch64_feature_detected!("fp16")
        {
            levels.push(Isa::Neon);
        }
        levels
    }

    /// Whether it has dot products of bf16.
    pub const fn has_bf16(self) -> bool {
        matches!(self, Isa::Avx512Bf16)
    }

    /// The name people see (`avx512+bf16`).
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512+vnni",
            Isa::Avx512Bf16 => "avx512+vnni+bf16",
            Isa::Neon => "neon+dotprod",
        }
    }
}
