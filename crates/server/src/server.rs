//! A running server: its listeners and its end.

use crate::batch::Runner;
use crate::http::accept::Service;
use crate::trace::Tracer;
use crate::{App, ServeError, routes};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, rustls};

/// Listening, not yet serving.
pub struct Server {
    app: Arc<App>,
    runtime: tokio::runtime::Runtime,
    listeners: Vec<TcpListener>,
    unix: Option<(UnixListener, PathBuf)>,
    tls: Option<TlsAcceptor>,
    terminate: Signal,
    stop: watch::Sender<bool>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

/// Stops a server from another thread.
#[derive(Clone, Debug)]
pub struct Stop {
    stop: watch::Sender<bool>,
    app: Arc<App>,
}

impl Stop {
    /// Takes no new work and lets running answers end, within the time that the limits allow.
    pub fn stop(&self) {
        self.app.draining.store(true, Ordering::Relaxed);
        self.stop.send_replace(true);
    }
}

impl Server {
    /// Checks the options, opens the sockets.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn bind(app: Arc<App>) -> Result<Server, ServeError> {
        let options = &app.options;
        check(&app)?;
        if let Some(base) = &options.otlp {
            let tracer = Tracer::new(base).map_err(|why| ServeError::Options(format!("--otlp {why}")))?;
            let _ = app.tracer.set(tracer);
        }
        keep_files(&app)?;
        let tls = options.tls.as_ref().map(|(chain, key)| acceptor(chain, key)).transpose()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("kun-http")
            // Everything that takes time happens on blocking threads.
            .worker_threads(2)
            // Every request that has a place may hold one, and the rest must not wait for those.
            .max_blocking_threads(app.places() + 32)
            .enable_all()
            .build()
            .map_err(|source| ServeError::Io { what: "cannot start the runtime".to_owned(), source })?;
        let (listeners, unix, terminate) = runtime.block_on(async {
            // From here on it ends the server in order, however long models load.
            let terminate = signal(SignalKind::terminate())
                .map_err(|source| ServeError::Io { what: "cannot listen to SIGTERM".to_owned(), source })?;
            let mut listeners = Vec::new();
            for address in &options.listen {
                let listener = TcpListener::bind(address)
                    .await
                    .map_err(|source| ServeError::Listen { address: address.to_string(), source })?;
                listeners.push(listener);
            }
            let unix = options.unix_socket.clone().map(|path| Ok((bind_unix(&path)?, path))).transpose()?;
            Ok::<_, ServeError>((listeners, unix, terminate))
        })?;
        Ok(Server { app, runtime, listeners, unix, tls, terminate, stop: watch::channel(false).0 })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// A handle that stops it.
    pub fn stopper(&self) -> Stop {
        Stop { stop: self.stop.clone(), app: self.app.clone() }
    }

    /// Serves until it is stopped or gets SIGTERM.
    ///
    /// # Errors
    /// [`ServeError::Preload`].
    pub fn run(self) -> Result<(), ServeError> {
        let stopper = self.stopper();
        let Server { app, runtime, listeners, unix, tls, mut terminate, stop } = self;
        let drain = app.options.limits.drain_time;
        let result = runtime.block_on(async {
            let router = routes::router(&app);
            let service = Service::new(app.clone(), router, stop.subscribe(), tls);
            let mut tasks = JoinSet::new();
            for listener in listeners {
                tasks.spawn(service.clone().listen(listener));
            }
            let socket = unix.map(|(listener, path)| {
                tasks.spawn(service.clone().listen(listener));
                path
            });
            drop(service);
            tokio::spawn(sweep(app.clone()));
            let loading = tokio::task::spawn_blocking({
                let app = app.clone();
                move || preload(&app)
            });
            let mut stopped = stop.subscribe();
            let mut loaded = Ok(());
            tokio::select! {
                result = loading => loaded = result.unwrap_or(Ok(())),
                _ = stopped.wait_for(|stopped| *stopped) => {}
                _ = terminate.recv() => stopper.stop(),
            }
            if loaded.is_err() {
                stopper.stop();
            }
            let batches = Runner::start(&app, tokio::runtime::Handle::current());
            app.ready.store(true, Ordering::Relaxed);
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => {}
                _ = terminate.recv() => stopper.stop(),
            }
            if let Some(batches) = app.batches.get() {
                batches.stop();
            }
            let over = app.clone();
            tokio::spawn(async move {
                tokio::time::sleep(drain).await;
                over.over.send_replace(true);
            });
            // Every connection has its own limit; this is for one that hangs all the same.
            let all = async { while tasks.join_next().await.is_some() {} };
            tokio::select! {
                _ = tokio::time::timeout(drain + LAST_WORDS + Duration::from_secs(1), all) => {}
                _ = terminate.recv() => {}
            }
            if let Some(path) = socket {
                let _ = std::fs::remove_file(path);
            }
            // It stops within a moment; what it has done is on the disk then.
            let ended = tokio::task::spawn_blocking(|| batches.map(std::thread::JoinHandle::join));
            let _ = tokio::time::timeout(LAST_WORDS, ended).await;
            loaded
        });
        if let Some(tracer) = stopper.app.tracer.get() {
            tracer.flush();
        }
        // Blocking work of clients that have gone is not waited for.
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }
}

/// Opens the place of files and batches, unless another server has it.
fn keep_files(app: &App) -> Result<(), ServeError> {
    let Some(folder) = &app.options.files_dir else { return Ok(()) };
    match Runner::open(folder) {
        Ok(runner) => {
            let _ = app.batches.set(runner);
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            tracing::warn!(folder = %folder.display(), "another server keeps the files there: this one keeps none");
            Ok(())
        }
        Err(source) => {
            Err(ServeError::Io { what: format!("cannot keep files in {}", folder.display()), source })
        }
    }
}

/// How long connections stay open after that, for the error that ends what still runs.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// Loads the models that must be there from the start.
fn preload(app: &App) -> Result<(), ServeError> {
    for name in &app.options.preload {
        let loaded = app.load(&crate::app::public_name(name));
        loaded.map_err(|refusal| ServeError::Preload { name: name.clone(), why: refusal.message })?;
    }
    Ok(())
}

/// A step that takes longer is told in the log: nothing else says that a model hangs. A large model on a small machine may
/// need as long, so it is left to go on.
const LONG_STEP: Duration = Duration::from_secs(60);
const SWEEP_EVERY: Duration = Duration::from_secs(2);

async fn sweep(app: Arc<App>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let app = app.clone();
        // Letting a model go waits for its worker.
        let _ = tokio::task::spawn_blocking(move || {
            for (path, time) in app.steps().filter(|(_, time)| is_told(*time)) {
                let seconds = time.as_secs();
                tracing::error!(path = %path.display(), seconds, "a step of this model does not end");
            }
            app.library.sweep();
        })
        .await;
    }
}

/// Whether a look at a step that has run so long is the first in its minute beyond the first.
fn is_told(time: Duration) -> bool {
    time >= LONG_STEP && Duration::from_secs(time.as_secs() % LONG_STEP.as_secs()) < SWEEP_EVERY
}

/// Refuses options that would leave the machine open.
fn check(app: &App) -> Result<(), ServeError> {
    let options = &app.options;
    let open = options.listen.iter().find(|address| !address.ip().is_loopback());
    if let (Some(address), true, false) = (open, options.keys.is_empty(), options.insecure_no_auth) {
        return Err(ServeError::Options(format!(
            "{address} can be reached from other machines: give keys (--api-key-file), or say --insecure-no-auth"
        )));
    }
    if options.cors_origins.iter().any(|origin| origin == "*") {
        return Err(ServeError::Options(
            "--cors-origin takes origins such as https://app.example, not *".to_owned(),
        ));
    }
    if options.listen.is_empty() && options.unix_socket.is_none() {
        return Err(ServeError::Options("nowhere to listen".to_owned()));
    }
    Ok(())
}

/// A socket that only its owner can open. A stale one is replaced, another server's is not.
fn bind_unix(path: &Path) -> Result<UnixListener, ServeError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |source| ServeError::Listen { address: path.display().to_string(), source };
    if std::os::unix::net::UnixStream::connect(path).is_err() && is_socket(path) {
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket())
}

fn acceptor(chain: &Path, key: &Path) -> Result<TlsAcceptor, ServeError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| ServeError::Tls(format!("{}: {error}", path.display())))
    };
    let bad =
        |path: &Path, what: &dyn std::fmt::Display| ServeError::Tls(format!("{}: {what}", path.display()));
    let certificates = CertificateDer::pem_slice_iter(&read(chain)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(chain, &error))?;
    if certificates.is_empty() {
        return Err(bad(chain, &"no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| bad(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, private))
        .map_err(|error| ServeError::Tls(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::{SWEEP_EVERY, is_told};
    use std::time::Duration;

    #[test]
    fn a_step_that_hangs_is_told_once_a_minute() {
        let looks = (0..150).map(|n| Duration::from_millis(700) + SWEEP_EVERY * n);
        let told: Vec<u64> = looks.filter(|time| is_told(*time)).map(|time| time.as_secs()).collect();
        assert_eq!(told, [60, 120, 180, 240]);
    }
}
