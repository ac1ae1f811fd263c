//! A client's talk with the scheduler.

use super::plan::{Codec, RunSplits, answers};
use super::request::{Answer, Sealed};
use super::{LOOK_EVERY, MAX_MESSAGE_BYTES, failed, unreachable};
use crate::{BulkError, Split};
use ballista_core::client::BallistaClient;
use ballista_core::config::{BALLISTA_JOB_NAME, BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK};
use ballista_core::serde::protobuf::execute_query_params::Query;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::{
    CancelJobParams, ExecuteQueryParams, ExecutorStoppedParams, GetJobStatusParams, KeyValuePair,
    PartitionLocation, RemoveSessionParams, execute_query_result, job_status,
};
use ballista_core::utils::{GrpcClientConfig, create_grpc_client_endpoint};
use ballista_core::version::insert_version_header;
use datafusion_proto::physical_plan::AsExecutionPlan;
use datafusion_proto::protobuf::PhysicalPlanNode;
use futures_util::TryStreamExt;
use std::time::Duration;
use tonic::transport::Channel;

/// A connection to a scheduler.
#[derive(Clone)]
pub(super) struct Link {
    client: SchedulerGrpcClient<Channel>,
    at: String,
}

/// A job that was handed over.
#[derive(Clone, Debug)]
pub(super) struct Submitted {
    id: String,
    session: String,
}

/// Where a job stands for the scheduler.
pub(super) enum Standing {
    /// It is being done, or will be.
    Running,
    /// All its splits were answered.
    Answered(Vec<PartitionLocation>),
    /// It ended before.
    Failed(String),
    /// The scheduler knows nothing of it: it was started anew.
    Unknown,
}

/// Connections that are dead are found to be so.
pub(super) fn grpc() -> GrpcClientConfig {
    GrpcClientConfig {
        connect_timeout_seconds: LOOK_EVERY.as_secs(),
        timeout_seconds: 2 * LOOK_EVERY.as_secs(),
        http2_keepalive_interval_seconds: LOOK_EVERY.as_secs(),
        max_message_size: MAX_MESSAGE_BYTES as usize,
        ..GrpcClientConfig::default()
    }
}

impl Link {
    /// Connects.
    pub(super) async fn open(host: &str, port: u16) -> Result<Link, BulkError> {
        let at = format!("{host}:{port}");
        let away = |error: String| unreachable(format!("no scheduler at {at}: {error}"));
        let endpoint = create_grpc_client_endpoint(format!("http://{at}"), Some(&grpc()))
            .map_err(|error| away(error.to_string()))?;
        let channel = endpoint.connect().await.map_err(|error| away(crate::input::chain(&error)))?;
        let client = SchedulerGrpcClient::new(channel)
            .max_encoding_message_size(MAX_MESSAGE_BYTES as usize)
            .max_decoding_message_size(MAX_MESSAGE_BYTES as usize);
        Ok(Link { client, at })
    }

    fn lost(&self, status: &tonic::Status) -> BulkError {
        unreachable(format!("the scheduler at {} cannot be reached: {}", self.at, status.message()))
    }

    /// Hands splits over: each of `tasks` goes to one executor.
    pub(super) async fn submit(
        &mut self,
        tasks: &[Vec<&Split>],
        sealed: Sealed,
        wait: Duration,
        name: &str,
    ) -> Result<Submitted, BulkError> {
        let plan = RunSplits::plan(tasks, sealed, wait).map_err(|error| failed(error.to_string()))?;
        let mut bytes = Vec::new();
        PhysicalPlanNode::try_from_physical_plan(plan, &Codec::default())
            .and_then(|node| node.try_encode(&mut bytes))
            .map_err(|error| failed(error.to_string()))?;
        if bytes.len() >= MAX_MESSAGE_BYTES as usize {
            return Err(BulkError::job(
                "the list of splits is too long for one message: ask for larger splits",
            ));
        }
        let setting =
            |key: &str, value: &str| KeyValuePair { key: key.to_owned(), value: Some(value.to_owned()) };
        let session = super::client::random();
        let query = ExecuteQueryParams {
            query: Some(Query::PhysicalPlan(bytes)),
            settings: vec![
                setting(BALLISTA_JOB_NAME, name),
                setting(BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK, "1"),
            ],
            session_id: session,
            operation_id: super::client::random(),
        };
        let mut request = tonic::Request::new(query);
        insert_version_header(request.metadata_mut());
        let answer = self.client.execute_query(request).await.map_err(|status| match status.code() {
            tonic::Code::Unavailable | tonic::Code::DeadlineExceeded => self.lost(&status),
            _ => failed(format!("the scheduler at {} refuses the job: {}", self.at, status.message())),
        })?;
        match answer.into_inner().result {
            Some(execute_query_result::Result::Success(done)) => {
                Ok(Submitted { id: done.job_id, session: done.session_id })
            }
            Some(execute_query_result::Result::Failure(failure)) => {
                let why = failure.failure.map(|why| {
                    use ballista_core::serde::protobuf::execute_query_failure_result::Failure;
                    match why {
                        Failure::SessionNotFound(text)
                        | Failure::PlanParsingFailure(text)
                        | Failure::SqlParsingFailure(text) => text,
                    }
                });
                Err(failed(format!(
                    "the scheduler at {} refuses the job: {}",
                    self.at,
                    why.unwrap_or_default()
                )))
            }
            None => Err(failed(format!("the scheduler at {} gave no answer", self.at))),
        }
    }

    /// Where a job stands.
    pub(super) async fn standing(&mut self, job: &Submitted) -> Result<Standing, BulkError> {
        let asked = GetJobStatusParams { job_id: job.id.clone() };
        let answer = match self.client.get_job_status(asked).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == tonic::Code::Internal => return Ok(Standing::Unknown),
            Err(status) => return Err(self.lost(&status)),
        };
        Ok(match answer.status.and_then(|status| status.status) {
            None => Standing::Unknown,
            Some(job_status::Status::Queued(_) | job_status::Status::Running(_)) => Standing::Running,
            Some(job_status::Status::Failed(failure)) => Standing::Failed(failure.error),
            Some(job_status::Status::Successful(done)) => Standing::Answered(done.partition_location),
        })
    }

    /// Takes a job back; that the scheduler is away is no error of whoever wants to end it.
    pub(super) async fn cancel(&mut self, job: &Submitted) {
        if let Err(error) = self.client.cancel_job(CancelJobParams { job_id: job.id.clone() }).await {
            tracing::warn!(%error, "cannot cancel the job");
        }
        self.forget(job).await;
    }

    /// Lets the scheduler forget what it keeps for the job's settings.
    pub(super) async fn forget(&mut self, job: &Submitted) {
        let session = RemoveSessionParams { session_id: job.session.clone() };
        if let Err(error) = self.client.remove_session(session).await {
            tracing::debug!(%error, "cannot remove a session");
        }
    }

    /// Says that an executor does no more.
    pub(super) async fn executor_stopped(&mut self, id: &str) {
        let stopped =
            ExecutorStoppedParams { executor_id: id.to_owned(), reason: "it was stopped".to_owned() };
        if let Err(error) = self.client.executor_stopped(stopped).await {
            tracing::warn!(%error, "cannot say that this executor stops");
        }
    }
}

/// What executors answered for some of the tasks, asked from them.
pub(super) async fn fetch(location: PartitionLocation) -> Result<Vec<Answer>, String> {
    let layout = location.layout();
    let (Some(executor), Some(partition)) = (location.executor_meta, location.partition_id) else {
        return Err("an answer lies nowhere".to_owned());
    };
    let port = u16::try_from(executor.port).map_err(|error| error.to_string())?;
    let asked = async {
        let size = MAX_MESSAGE_BYTES as usize;
        let mut client =
            BallistaClient::try_new(&executor.host, port, size, false, None, 1, 100, 0, 0).await?;
        let stream =
            client.fetch_partition(&executor.id, &partition.into(), location.file_id, layout, true).await?;
        let batches: Vec<_> = stream.try_collect().await?;
        Ok::<_, ballista_core::error::BallistaError>(batches.iter().flat_map(answers).collect())
    };
    let at = format!("{}:{port}", executor.host);
    match tokio::time::timeout(Duration::from_secs(10), asked).await {
        Ok(answered) => answered.map_err(|error| format!("executor {at} cannot be asked why: {error}")),
        Err(_) => Err(format!("executor {at} does not say why")),
    }
}
