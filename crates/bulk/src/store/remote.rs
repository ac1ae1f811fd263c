//! Buckets (`s3://`, `gs://`, `az://`) and web addresses.

use super::{Created, Draft, Faults, Object, ObjectInfo, ReadAt, StoreOptions};
use crate::BulkError;
use futures_util::TryStreamExt;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;
use url::Url;

/// Clients of buckets and hosts, made when they are first needed.
pub(super) struct Remotes {
    settings: BTreeMap<String, String>,
    offline: bool,
    faults: Faults,
    clients: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

/// Threads that wait for the network; work is done elsewhere.
fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("kun-network")
            .enable_all()
            .build()
    });
    made.as_ref().map_err(|error| io::Error::other(error.to_string()))
}

fn wait<T>(work: impl Future<Output = Result<T, Error>>) -> io::Result<T> {
    runtime()?.block_on(work).map_err(|error| {
        let kind = match &error {
            Error::NotFound { .. } => io::ErrorKind::NotFound,
            Error::AlreadyExists { .. } | Error::Precondition { .. } => io::ErrorKind::AlreadyExists,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    })
}

fn input_error(uri: &str, error: &io::Error) -> BulkError {
    let what = match error.kind() {
        io::ErrorKind::NotFound => "there is no such object".to_owned(),
        _ => crate::input::chain(error),
    };
    BulkError::Input { uri: uri.to_owned(), what }
}

fn etag(meta: &ObjectMeta) -> String {
    meta.e_tag.clone().unwrap_or_else(|| format!("{}-{:x}", meta.last_modified.timestamp_millis(), meta.size))
}

impl Remotes {
    pub(super) fn new(options: &StoreOptions) -> Remotes {
        Remotes {
            settings: options.settings.clone(),
            offline: options.offline,
            faults: options.faults.clone(),
            clients: Mutex::default(),
        }
    }

    fn client(&self, uri: &str) -> Result<(Arc<dyn ObjectStore>, Path), BulkError> {
        let wrong = |what: String| BulkError::Input { uri: uri.to_owned(), what };
        if self.offline {
            return Err(wrong("it is not on this machine, and no connection may be opened".to_owned()));
        }
        let url = Url::parse(uri).map_err(|error| wrong(error.to_string()))?;
        let (_, path) =
            object_store::ObjectStoreScheme::parse(&url).map_err(|error| wrong(error.to_string()))?;
        let key = format!("{}://{}", url.scheme(), url.authority());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok((client.clone(), path));
        }
        let client: Arc<dyn ObjectStore> = if matches!(url.scheme(), "http" | "https") {
            let options = ClientOptions::new()
                .with_allow_http(true)
                .with_connect_timeout(Duration::from_secs(5))
                .with_timeout(Duration::from_secs(60));
            // Rows name hosts that are gone: a row is tried again by the job's own rule.
            let retry = RetryConfig {
                max_retries: 1,
                retry_timeout: Duration::from_secs(20),
                ..RetryConfig::default()
            };
            let made =
                HttpBuilder::new().with_url(&key).with_client_options(options).with_retry(retry).build();
            Arc::new(made.map_err(|error| wrong(error.to_string()))?)
        } else {
            let made = object_store::parse_url_opts(&url, self.settings.iter().map(|(k, v)| (k, v.clone())));
            Arc::from(made.map_err(|error| wrong(crate::input::chain(&error)))?.0)
        };
        clients.insert(key, client.clone());
        Ok((client, path))
    }

    pub(super) fn info(&self, uri: &str) -> Result<ObjectInfo, BulkError> {
        let (client, path) = self.client(uri)?;
        let meta = wait(client.head(&path)).map_err(|error| input_error(uri, &error))?;
        Ok(ObjectInfo { uri: uri.to_owned(), size: meta.size, etag: etag(&meta) })
    }

    pub(super) fn list(&self, uri: &str) -> Result<Vec<ObjectInfo>, BulkError> {
        let (client, prefix) = self.client(uri)?;
        let failed = |error: io::Error| input_error(uri, &error);
        let prefix_text = prefix.to_string();
        let metas: Vec<ObjectMeta> = wait(client.list(Some(&prefix)).try_collect()).map_err(failed)?;
        let base = uri.trim_end_matches('/');
        let mut found: Vec<ObjectInfo> = metas
            .iter()
            .filter_map(|meta| {
                let inside =
                    meta.location.as_ref().strip_prefix(prefix_text.as_str())?.trim_start_matches('/');
                // What a job keeps for itself is no input.
                let own =
                    inside.split('/').any(|name| name.starts_with(['.', '_']) || name.ends_with(".kun"));
                (!own && !inside.is_empty()).then(|| ObjectInfo {
                    uri: format!("{base}/{inside}"),
                    size: meta.size,
                    etag: etag(meta),
                })
            })
            .collect();
        found.sort_by(|a, b| a.uri.cmp(&b.uri));
        Ok(found)
    }

    pub(super) fn open(&self, info: &ObjectInfo) -> Result<Object, BulkError> {
        let (client, path) = self.client(&info.uri)?;
        let now = self.info(&info.uri)?;
        if now != *info {
            let what = "it changed after the job had begun".to_owned();
            return Err(BulkError::Input { uri: info.uri.clone(), what });
        }
        Ok(Object::new(Arc::new(RemoteObject { client, path }), info.size))
    }

    pub(super) fn folder(&self, uri: &str) -> Result<RemoteFolder, BulkError> {
        if uri.starts_with("http://") || uri.starts_with("https://") {
            return Err(BulkError::job(format!("{uri}: rows go to files or buckets, not to web addresses")));
        }
        let (client, prefix) = self.client(uri)?;
        Ok(RemoteFolder {
            client,
            prefix,
            uri: uri.trim_end_matches('/').to_owned(),
            faults: self.faults.clone(),
        })
    }
}

struct RemoteObject {
    client: Arc<dyn ObjectStore>,
    path: Path,
}

impl ReadAt for RemoteObject {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = wait(self.client.get_range(&self.path, offset..offset + buffer.len() as u64))?;
        if bytes.len() != buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.copy_from_slice(&bytes);
        Ok(())
    }
}

/// A prefix of a bucket.
#[derive(Clone)]
pub(super) struct RemoteFolder {
    client: Arc<dyn ObjectStore>,
    prefix: Path,
    uri: String,
    faults: Faults,
}

impl RemoteFolder {
    pub(super) fn inside(&self, name: &str) -> RemoteFolder {
        RemoteFolder { prefix: self.path(name), uri: self.uri(name), ..self.clone() }
    }

    pub(super) fn uri(&self, name: &str) -> String {
        format!("{}/{name}", self.uri)
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.prefix))
    }

    pub(super) fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(name);
        let read = wait(async {
            let found = self.client.get(&path).await?;
            if found.meta.size > limit {
                let source = format!("more than {limit} bytes").into();
                return Err(Error::Generic { store: "kun", source });
            }
            found.bytes().await
        });
        match read {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put(&self, name: &str, bytes: Vec<u8>, mode: PutMode) -> io::Result<Created> {
        self.faults.before("put")?;
        let options = PutOptions { mode, ..PutOptions::default() };
        let put = wait(self.client.put_opts(&self.path(name), PutPayload::from(bytes), options));
        self.faults.after("put")?;
        match put {
            Ok(_) => Ok(Created::New),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Created::Existed),
            Err(error) => Err(error),
        }
    }

    pub(super) fn create(&self, name: &str, bytes: Vec<u8>) -> io::Result<Created> {
        self.put(name, bytes, PutMode::Create)
    }

    pub(super) fn replace(&self, name: &str, bytes: Vec<u8>) -> io::Result<()> {
        self.put(name, bytes, PutMode::Overwrite).map(|_| ())
    }

    /// Drafts lie in this machine's folder for temporary files, and lose their name at once where files may: what a
    /// process leaves behind that is killed is gone.
    pub(super) fn draft(&self) -> io::Result<Draft> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        self.faults.before("open")?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kun-draft-{}-{count}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let _ = std::fs::remove_file(&path);
        Ok(Draft { path, file: Some(file), faults: self.faults.clone(), written: 0 })
    }

    fn put_draft(&self, mut draft: Draft, name: &str, mode: PutMode) -> io::Result<Created> {
        let Some(mut file) = draft.file.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        self.put(name, bytes, mode)
    }

    pub(super) fn publish(&self, draft: Draft, name: &str) -> io::Result<Created> {
        self.put_draft(draft, name, PutMode::Create)
    }

    pub(super) fn publish_over(&self, draft: Draft, name: &str) -> io::Result<()> {
        self.put_draft(draft, name, PutMode::Overwrite).map(|_| ())
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.faults.before("delete")?;
        match wait(self.client.delete(&self.path(name))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.faults.after("delete")
    }

    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let listed = wait(self.client.list_with_delimiter(Some(&self.prefix)))?;
        let mut names: Vec<String> =
            listed.objects.iter().filter_map(|meta| meta.location.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    pub(super) fn open(&self, name: &str) -> Result<Object, BulkError> {
        let path = self.path(name);
        let meta = wait(self.client.head(&path)).map_err(|error| input_error(&self.uri(name), &error))?;
        Ok(Object::new(Arc::new(RemoteObject { client: self.client.clone(), path }), meta.size))
    }

    pub(super) fn clear(&self) -> io::Result<()> {
        let all: Vec<ObjectMeta> = wait(self.client.list(Some(&self.prefix)).try_collect())?;
        for meta in all {
            wait(self.client.delete(&meta.location))?;
        }
        Ok(())
    }
}
