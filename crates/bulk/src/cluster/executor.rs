//! One who does splits.

use super::plan::{Codec, OnlySplits, bare_runtime};
use super::submit::{Link, grpc};
use super::worker::Worker;
use super::{LOOK_EVERY, MAX_MESSAGE_BYTES, Token, failed, raised, runtime, unreachable};
use crate::input::chain;
use crate::store::{Allow, StoreOptions};
use crate::{BulkError, Models, Registry, Stop};
use arrow_flight::flight_service_server::FlightServiceServer;
use ballista_core::BALLISTA_PROTOCOL_VERSION;
use ballista_core::extension::SessionConfigExt;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::serde::protobuf::ExecutorRegistration;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::scheduler::{ExecutorOperatingSystemSpecification, ExecutorSpecification};
use ballista_core::serde::{BallistaCodec, BallistaLogicalExtensionCodec};
use ballista_core::utils::{GrpcServerConfig, create_grpc_client_endpoint, create_grpc_server};
use ballista_executor::execution_engine::DefaultExecutionEngine;
use ballista_executor::execution_loop::poll_loop;
use ballista_executor::flight_service::BallistaFlightService;
use ballista_executor::health::ExecutorHealth;
use ballista_executor::metrics::LoggingMetricsCollector;
use datafusion::prelude::SessionConfig;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use kun_engine::Engine;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tonic::transport::server::TcpIncoming;

/// How long an executor looks for its scheduler.
const LOOK_FOR_SCHEDULER: Duration = Duration::from_secs(60);
/// How long it may take to keep what was done when it is stopped.
const FAREWELL: Duration = Duration::from_secs(20);

/// How an executor works.
pub struct ExecutorOptions {
    /// Host and port of the scheduler.
    pub scheduler: (String, u16),
    /// Where clients may ask why a split was not done; port 0 takes any.
    pub listen: SocketAddr,
    /// Where jobs may read and write.
    pub allow: Allow,
    /// Splits at once.
    pub workers: usize,
    /// Compute threads of each model; `None`: the physical cores.
    pub threads: Option<usize>,
    /// What jobs are sealed with; `None`: all are done.
    pub token: Option<Token>,
    /// How buckets are reached.
    pub stores: StoreOptions,
    /// What it is called when it cannot do a split.
    pub name: String,
}

/// An executor that is ready to work.
pub struct Executor {
    id: String,
    scheduler: (String, u16),
    listener: TcpListener,
    worker: Arc<Worker>,
    work_dir: PathBuf,
}

impl Executor {
    /// Finds its scheduler.
    ///
    /// # Errors
    /// [`BulkError::Cluster`] if there is none, [`BulkError::Store`] for an address that cannot be had.
    pub fn new(
        options: ExecutorOptions,
        engine: Engine,
        models: Arc<dyn Models>,
        say: Arc<dyn Fn(&str) + Send + Sync>,
        stop: &Stop,
    ) -> Result<Executor, BulkError> {
        find(&options.scheduler, stop)?;
        let id = super::client::random();
        let listener = TcpListener::bind(options.listen).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
        let (listener, address) =
            listener.map_err(|source| BulkError::store("listen on", options.listen, source))?;
        let work_dir = std::env::temp_dir().join(format!("kun-executor-{id}"));
        std::fs::create_dir_all(&work_dir)
            .map_err(|source| BulkError::store("make", work_dir.display(), source))?;
        let worker = Arc::new(Worker {
            registry: Registry::builtin(),
            engine,
            models,
            stores: options.stores,
            allow: options.allow,
            threads: options.threads,
            token: options.token,
            workers: options.workers,
            name: format!("{} ({address})", options.name),
            stop: stop.clone(),
            say,
            jobs: Mutex::default(),
            at_work: Mutex::default(),
        });
        Ok(Executor { id, scheduler: options.scheduler, listener, worker, work_dir })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.worker.name
    }

    /// Works until its stop is raised; what is done by then is kept.
    ///
    /// # Errors
    /// [`BulkError::Cluster`].
    pub fn run(self) -> Result<(), BulkError> {
        let runtime = runtime()?;
        let (id, scheduler, work_dir) = (self.id.clone(), self.scheduler.clone(), self.work_dir.clone());
        let worker = self.worker.clone();
        let ended = runtime.block_on(self.work());
        worker.stop.raise();
        // What this one leaves is dealt out at once.
        let goodbye = async {
            if let Ok(mut link) = Link::open(&scheduler.0, scheduler.1).await {
                link.executor_stopped(&id).await;
            }
        };
        // A scheduler that is away will find out by itself.
        let _ = runtime.block_on(async { tokio::time::timeout(LOOK_EVERY, goodbye).await });
        let began = Instant::now();
        while !worker.is_idle() && began.elapsed() < FAREWELL {
            std::thread::sleep(Duration::from_millis(20));
        }
        runtime.shutdown_background();
        // Nothing of value lies there.
        let _ = std::fs::remove_dir_all(work_dir);
        ended
    }

    /// Asks for tasks and does them.
    async fn work(self) -> Result<(), BulkError> {
        let broken = |error: &dyn std::error::Error| failed(chain(error));
        let address = self.listener.local_addr().map_err(|error| broken(&error))?;
        let work_dir = self.work_dir.display().to_string();
        let ip = address.ip();
        let registration = ExecutorRegistration {
            id: self.id,
            // Whoever listens everywhere is known by the address that it comes from.
            host: (!ip.is_unspecified()).then(|| bracketed(&ip.to_string())),
            port: address.port().into(),
            // Nothing listens there: this one asks for work.
            grpc_port: 0,
            specification: Some(
                ExecutorSpecification::default()
                    .with_vcores(u32::try_from(self.worker.workers).unwrap_or(u32::MAX))
                    .into(),
            ),
            os_info: Some(ExecutorOperatingSystemSpecification::default().into()),
            ballista_protocol_version: BALLISTA_PROTOCOL_VERSION,
        };
        let vcores = self.worker.workers;
        let executor = Arc::new(ballista_executor::executor::Executor::new(
            registration,
            &work_dir,
            Arc::new(|_| bare_runtime()),
            Arc::new(SessionConfig::new_with_ballista),
            Arc::new(BallistaFunctionRegistry::default()),
            Arc::new(LoggingMetricsCollector::default()),
            vcores,
            Arc::new(OnlySplits(DefaultExecutionEngine::new())),
        ));
        let codec: BallistaCodec<LogicalPlanNode, PhysicalPlanNode> = BallistaCodec::new(
            Arc::new(BallistaLogicalExtensionCodec::default()),
            Arc::new(Codec {
                token: self.worker.token.clone(),
                worker: Some(self.worker.clone()),
                ..Codec::default()
            }),
        );
        let size = MAX_MESSAGE_BYTES as usize;
        let (host, port) = &self.scheduler;
        let endpoint = create_grpc_client_endpoint(format!("http://{host}:{port}"), Some(&grpc()))
            .map_err(|error| broken(&error))?;
        let channel = endpoint.connect().await.map_err(|error| unreachable(chain(&error)))?;
        let scheduler =
            SchedulerGrpcClient::new(channel).max_encoding_message_size(size).max_decoding_message_size(size);
        let listener = tokio::net::TcpListener::from_std(self.listener).map_err(|error| broken(&error))?;
        let answers = FlightServiceServer::new(BallistaFlightService::new(work_dir))
            .max_decoding_message_size(size)
            .max_encoding_message_size(size);
        let served = create_grpc_server(&GrpcServerConfig::default())
            .add_service(answers)
            .serve_with_incoming(TcpIncoming::from(listener));
        // With something to be woken by, an idle executor asks once a second, and not twenty times.
        let woken = Some(Arc::new(Notify::new()));
        tokio::select! {
            ended = served => ended.map_err(|error| broken(&error)),
            ended = poll_loop(scheduler, executor, codec, woken, None, ExecutorHealth::new()) => {
                ended.map_err(|error| broken(&error))
            }
            () = raised(&self.worker.stop) => Ok(()),
        }
    }
}

/// Sees that somebody listens.
fn find((host, port): &(String, u16), stop: &Stop) -> Result<(), BulkError> {
    let began = Instant::now();
    loop {
        let why = match connect(host, *port) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if stop.is_raised() {
            return Err(BulkError::Stopped);
        }
        if began.elapsed() > LOOK_FOR_SCHEDULER {
            return Err(unreachable(format!("no scheduler at {host}:{port}: {why}")));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Opens a connection and closes it.
fn connect(host: &str, port: u16) -> std::io::Result<()> {
    let host = host.trim_matches(['[', ']']);
    let mut last = std::io::Error::other("the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}
