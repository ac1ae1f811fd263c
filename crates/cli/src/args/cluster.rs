//! Flags of `kun cluster`.

use super::values::parse_count;
use clap::{Args, Subcommand};
use std::net::SocketAddr;

/// Work through large data on many machines
#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    Scheduler(SchedulerArgs),
    Executor(ExecutorArgs),
}

/// Deal out the splits of `kun map --on`
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun cluster scheduler                                      on 127.0.0.1:50050
  KUN_CLUSTER_TOKEN=… kun cluster scheduler --listen 10.0.0.1:50050")]
pub struct SchedulerArgs {
    /// Address and port to listen on; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:50050", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Listen beyond this machine without a token all the same
    #[arg(long, hide_short_help = true)]
    pub insecure_no_auth: bool,
}

/// Do splits of `kun map --on`
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun cluster executor --allow /data
  KUN_CLUSTER_TOKEN=… kun cluster executor --scheduler 10.0.0.1:50050 --listen 10.0.0.2:0 --allow s3://bucket/job/")]
pub struct ExecutorArgs {
    /// The scheduler
    #[arg(long, default_value = "127.0.0.1:50050", value_name = "HOST:PORT")]
    pub scheduler: String,
    /// A folder or a prefix of a bucket that jobs may read and write; may be given more than once [default: the current
    /// folder]
    #[arg(long, value_name = "DIR|PREFIX")]
    pub allow: Vec<String>,
    /// Address that clients reach this machine at, to ask why a split was not done; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Work on so many splits at once
    #[arg(long, default_value_t = 2, value_parser = parse_count, value_name = "COUNT")]
    pub workers: usize,
    /// Compute threads of each model [default: the physical cores this process may use]
    #[arg(short = 't', long, value_parser = parse_count, value_name = "COUNT", hide_short_help = true)]
    pub threads: Option<usize>,
    /// Listen beyond this machine without a token all the same
    #[arg(long, hide_short_help = true)]
    pub insecure_no_auth: bool,
}
