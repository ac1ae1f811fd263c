//! The one who deals out splits.

use super::plan::{Codec, NoQueries, bare_runtime};
use super::{LOOK_EVERY, LOST_AFTER, MAX_MESSAGE_BYTES, failed, raised, runtime};
use crate::input::chain;
use crate::{BulkError, Stop, cluster::Token};
use ballista_core::config::TaskSchedulingPolicy;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service_with_listener};
use datafusion::execution::SessionStateBuilder;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

/// A job without any executor waits for one so long.
const WAIT_FOR_EXECUTORS_S: u64 = 24 * 3600;

/// A scheduler that listens.
pub struct Scheduler {
    listener: TcpListener,
    token: Option<Token>,
}

impl Scheduler {
    /// Listens; nothing is answered before [`Scheduler::run`].
    ///
    /// # Errors
    /// [`BulkError::Store`] for an address that cannot be had.
    pub fn bind(address: SocketAddr, token: Option<Token>) -> Result<Scheduler, BulkError> {
        let listener = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            // Connections inherit it: answers are short, and waiting for more of them costs 40 ms each.
            socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
            Ok(listener)
        });
        let listener = listener.map_err(|source| BulkError::store("listen on", address, source))?;
        Ok(Scheduler { listener, token })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn address(&self) -> Result<SocketAddr, BulkError> {
        self.listener.local_addr().map_err(|source| BulkError::store("listen on", "a port", source))
    }

    /// Deals out splits until `stop` is raised. What was being done is not lost: clients deal it out again.
    ///
    /// # Errors
    /// [`BulkError::Cluster`].
    pub fn run(self, stop: &Stop) -> Result<(), BulkError> {
        let address = self.address()?;
        let runtime = runtime()?;
        let served = runtime.block_on(async {
            let config = Arc::new(config(address, self.token));
            let cluster = BallistaCluster::new_from_config(&config).await?;
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            let scheduler = create_scheduler::<LogicalPlanNode, PhysicalPlanNode>(cluster, config).await?;
            tokio::select! {
                served = start_grpc_service_with_listener(listener, scheduler) => served,
                () = raised(stop) => Ok(()),
            }
        });
        runtime.shutdown_background();
        served.map_err(|error| failed(chain(&error)))
    }
}

fn config(address: SocketAddr, token: Option<Token>) -> SchedulerConfig {
    SchedulerConfig {
        bind_host: address.ip().to_string(),
        bind_port: address.port(),
        // Executors ask for work: nothing connects to them but clients that want to know why a split was not done.
        scheduling_policy: TaskSchedulingPolicy::PullStaged,
        executor_timeout_seconds: LOST_AFTER.as_secs(),
        expire_dead_executor_interval_seconds: LOOK_EVERY.as_secs(),
        no_executors_grace_period_seconds: WAIT_FOR_EXECUTORS_S,
        grpc_server_max_decoding_message_size: MAX_MESSAGE_BYTES,
        grpc_server_max_encoding_message_size: MAX_MESSAGE_BYTES,
        grpc_client_max_message_size: MAX_MESSAGE_BYTES,
        override_physical_codec: Some(Arc::new(Codec { token, ..Codec::default() })),
        override_session_builder: Some(Arc::new(|config| {
            Ok(SessionStateBuilder::new()
                .with_config(config)
                .with_runtime_env(bare_runtime()?)
                .with_query_planner(Arc::new(NoQueries))
                .build())
        })),
        ..SchedulerConfig::default()
    }
}
