//! Places where tests make reading and writing fail.

use std::io;
use std::sync::Arc;

type Hook = dyn Fn(&'static str) -> io::Result<()> + Send + Sync;

/// Asked before and after every operation that changes a disk; an error ends the operation there, as a crash or a full
/// disk would.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Hook>>);

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Faults(hook)" } else { "Faults" })
    }
}

impl Faults {
    /// Asks `hook`, with the name of the operation.
    pub fn new(hook: impl Fn(&'static str) -> io::Result<()> + Send + Sync + 'static) -> Faults {
        Faults(Some(Arc::new(hook)))
    }

    pub(crate) fn before(&self, operation: &'static str) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |hook| hook(operation))
    }

    pub(crate) fn after(&self, operation: &'static str) -> io::Result<()> {
        self.before(operation)
    }
}
