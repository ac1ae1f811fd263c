//! Jobs on many machines, with Ballista as the one who deals out splits.
//!
//! A client plans a job as on one machine and writes its plan beside its output. What crosses the network is a
//! [`request`](request::Request) (the job, a few kilobytes) and numbers of splits; executors read the plan, the input and
//! write parts where the client does: on a shared disk or in a bucket. The client believes the output alone, so an
//! answer that is lost, doubled or invented changes nothing.

mod client;
mod executor;
mod plan;
mod request;
mod scheduler;
mod submit;
mod worker;

pub use client::On;
pub use executor::{Executor, ExecutorOptions};
pub use request::Token;
pub use scheduler::Scheduler;

use crate::BulkError;
use std::time::Duration;

/// An executor that has not been heard of for so long has lost its splits.
const LOST_AFTER: Duration = Duration::from_secs(20);
/// How often lost executors are looked for, and connections tested.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Messages between machines are shorter.
const MAX_MESSAGE_BYTES: u32 = 64 << 20;

fn failed(what: impl Into<String>) -> BulkError {
    BulkError::Cluster { what: what.into(), unreachable: false }
}

fn unreachable(what: impl Into<String>) -> BulkError {
    BulkError::Cluster { what: what.into(), unreachable: true }
}

/// The host and port of `host:port`, perhaps with `df://` before it.
///
/// # Errors
/// [`BulkError::Job`].
pub fn address(text: &str) -> Result<(String, u16), BulkError> {
    let wrong = || BulkError::job(format!("`{text}`: expected df://HOST:PORT, such as df://scheduler:50050"));
    let plain = text.strip_prefix("df://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = plain.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if host.is_empty() || !host.chars().all(plain) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

/// Threads that wait for the network.
fn runtime() -> Result<tokio::runtime::Runtime, BulkError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("kun-cluster")
        .enable_all()
        .build()
        .map_err(|source| BulkError::store("start", "threads", source))
}

/// Ends when `stop` is raised.
async fn raised(stop: &crate::Stop) {
    while !stop.is_raised() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn reads_addresses() {
        assert_eq!(address("df://a.b:1").unwrap(), ("a.b".to_owned(), 1));
        assert_eq!(address("127.0.0.1:50050/").unwrap(), ("127.0.0.1".to_owned(), 50050));
        assert_eq!(address("df://[::1]:7").unwrap(), ("[::1]".to_owned(), 7));
        for bad in ["", "a", "a:", ":1", "df://a:b", "df://a:99999", "http://a:1", "a b:1", "u@a:1"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
