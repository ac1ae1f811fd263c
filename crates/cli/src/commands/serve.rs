//! `kun serve`.

use super::App;
use crate::args::{ImageUrls, ServeArgs};
use crate::exit::Misuse;
use crate::interrupt::Watch;
use crate::sandbox::Reach;
use anyhow::Context;
use kun_engine::Speculate;
use kun_hub::{Hub, HubOptions, ModelPath};
use kun_server::{Key, Keys, Limits, Schemes, ServeOptions, Server, new_key};
use std::io::Write;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// Serves until it is stopped.
pub fn serve(app: &App, args: &ServeArgs) -> anyhow::Result<()> {
    if let (Some(name), Some(file)) = (&args.add_key, &args.api_key_file) {
        return add_key(app, name, file);
    }
    crate::private::keep().context("cannot keep this process's memory private")?;
    let models = args.models.iter().map(|name| app.fetch(name)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut options = options(args)?;
    options.files_dir = options.files_dir.or_else(|| Some(app.folders.state.as_ref()?.join("files")));
    options.load.speculate = app.speculate(args.draft.as_deref())?;
    let open = options.keys.is_empty() && options.listen.iter().any(|address| !address.ip().is_loopback());
    let secure = options.tls.is_some();
    let hub = app.hub_settings().options;
    if args.sandbox {
        // Before the threads that read models, pictures and requests are started: they inherit it.
        crate::sandbox::enter(&reach(&hub, &options, &models)?)?;
    }
    let state = kun_server::App::new(app.engine.clone(), Hub::new(hub), options);
    let server = Server::bind(state)?;
    let stopper = server.stopper();
    let _watch = Watch::new(move || stopper.stop());
    for address in server.addresses() {
        let scheme = if secure { "https" } else { "http" };
        app.messages.note(&format!("Serving on {scheme}://{address}"));
    }
    if let Some(address) = server.addresses().first().filter(|_| !secure) {
        app.messages.note(&format!(
            "Try: curl http://{address}/v1/chat/completions -H 'Content-Type: application/json' \
             -d '{{\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'"
        ));
    }
    if open {
        app.messages.warning("everybody who reaches this machine can use the server: it has no keys");
    }
    Ok(server.run()?)
}

fn options(args: &ServeArgs) -> anyhow::Result<ServeOptions> {
    let mut keys = match &args.api_key_file {
        Some(file) => Keys::read(file).map_err(Misuse)?,
        None => Keys::default(),
    };
    if let Some(key) = crate::config::api_key() {
        keys.add(Key::new("KUN_API_KEY", &key).map_err(|why| Misuse(format!("KUN_API_KEY: {why}")))?);
    }
    let limits =
        Limits { connections: args.max_connections, drain_time: args.drain_timeout, ..Limits::default() };
    let mut load = args.load.options();
    load.max_sequences = Some(args.slots);
    Ok(ServeOptions {
        listen: addresses(args)?,
        unix_socket: args.unix_socket.clone(),
        tls: args.tls_cert.clone().zip(args.tls_key.clone()),
        keys,
        insecure_no_auth: args.insecure_no_auth,
        allowed_hosts: args.allowed_host.clone(),
        cors_origins: args.cors_origin.clone(),
        image_urls: args.allow_image_urls.map(|schemes| match schemes {
            ImageUrls::Https => Schemes::Https,
            ImageUrls::Http => Schemes::HttpToo,
        }),
        otlp: args.otlp.clone(),
        strict: args.strict,
        aliases: args.alias.clone(),
        default_model: args.model.clone().or_else(|| args.models.first().cloned()),
        null_model: args.null_model,
        preload: args.models.clone(),
        load,
        keep_alive: args.keep_alive,
        files_dir: args.files_dir.clone(),
        limits,
    })
}

/// What a server opens while it runs: the stores of models, files named on the command line, and what it keeps itself.
fn reach(hub: &HubOptions, options: &ServeOptions, models: &[ModelPath]) -> anyhow::Result<Reach> {
    let mut reach = Reach {
        read: hub.gguf_dirs.iter().chain(&hub.ollama_dir).chain(&hub.ca_files).cloned().collect(),
        write: vec![hub.cache_dir.clone(), hub.data_dir.clone()],
        sockets: Vec::new(),
    };
    reach.write.extend(options.files_dir.clone());
    for folder in &reach.write {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut named: Vec<&Path> = models.iter().map(|model| model.path.as_path()).collect();
    named.extend(options.aliases.iter().map(|(_, model)| Path::new(model)));
    named.extend(options.default_model.as_deref().map(Path::new));
    if let Speculate::Model(draft) = &options.load.speculate {
        named.push(draft);
    }
    // A model's other files lie beside it.
    reach.read.extend(
        named
            .into_iter()
            .filter_map(|path| if path.is_file() { folder_of(path) } else { Some(path.to_owned()) }),
    );
    reach.read.extend(options.tls.iter().flat_map(|(certificate, key)| [certificate.clone(), key.clone()]));
    reach.sockets.extend(options.unix_socket.as_deref().and_then(folder_of));
    Ok(reach)
}

fn folder_of(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    Some(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() })
}

/// The address, and its IPv6 counterpart where this machine's own is meant.
fn addresses(args: &ServeArgs) -> anyhow::Result<Vec<SocketAddr>> {
    let host = args.host.trim_matches(['[', ']']);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, args.port)]);
    }
    let found: Vec<SocketAddr> = (host, args.port)
        .to_socket_addrs()
        .map_err(|error| Misuse(format!("--host {host}: {error}")))?
        .collect();
    if found.is_empty() { Err(Misuse(format!("--host {host}: no address")).into()) } else { Ok(found) }
}

/// Shows a new key once; the file keeps its hash.
fn add_key(app: &App, name: &str, file: &Path) -> anyhow::Result<()> {
    let secret = new_key().map_err(anyhow::Error::msg)?;
    let key = Key::new(name, &secret).map_err(anyhow::Error::msg)?;
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut opened = options.open(file).with_context(|| format!("cannot write {}", file.display()))?;
    writeln!(opened, "{}", key.line()).with_context(|| format!("cannot write {}", file.display()))?;
    app.output.line(&secret)?;
    app.messages.note("This key is shown only now.");
    Ok(())
}
