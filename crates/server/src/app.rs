//! What every request shares.

use crate::error::{Kind, Refusal};
use crate::metrics::{Gauges, Metrics};
use crate::options::ServeOptions;
use crate::queue::Queue;
use crate::trace::Tracer;
use kun_engine::vision::{Looks, looks_at, verb_of};
use kun_engine::{Engine, Fit, Library, LoadedEncoder, LoadedModel, Resident, Tenant, Use, VisionOptions};
use kun_hub::public::PublicFetcher;
use kun_hub::{Hub, ModelName, ModelPath, StoredModel};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{Semaphore, watch};

/// The state of a server.
#[derive(Debug)]
pub struct App {
    pub(crate) options: ServeOptions,
    pub(crate) library: Library,
    pub(crate) hub: Hub,
    pub(crate) metrics: Metrics,
    /// Set when the server starts, if traces are wanted.
    pub(crate) tracer: OnceLock<Tracer>,
    pub(crate) ready: AtomicBool,
    pub(crate) draining: AtomicBool,
    /// Becomes true when running answers have had their time after a stop: what is left ends with an error.
    pub(crate) over: watch::Sender<bool>,
    /// Room for pictures, in MiB.
    pub(crate) pixels: Arc<Semaphore>,
    /// Room for the bodies of requests, in KiB.
    pub(crate) bodies: Arc<Semaphore>,
    /// Fetches pictures, where that is allowed.
    pub(crate) fetcher: Option<PublicFetcher>,
    /// Files and batches; set when the server starts, if there is a place for them.
    pub(crate) batches: OnceLock<crate::batch::Runner>,
    fetching: Mutex<BTreeMap<Tenant, usize>>,
    queue: Mutex<Queue>,
    pub(crate) responses: Mutex<VecDeque<crate::openai::responses::Stored>>,
    /// Models given by path at the start, under their names.
    served: BTreeMap<String, ModelPath>,
    /// What files say of models that are not loaded, and when they were changed.
    facts: Mutex<BTreeMap<PathBuf, Facts>>,
}

/// When a file was changed, and what it said then.
type Facts = (Option<SystemTime>, Option<Arc<Fit>>);

/// A model ready to answer, under the name that it was asked for by.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) model: Arc<LoadedModel>,
}

impl App {
    /// The state of a server with these options; nothing is loaded yet.
    pub fn new(engine: Engine, hub: Hub, mut options: ServeOptions) -> Arc<App> {
        let slots = options.load.max_sequences.get_or_insert(DEFAULT_SLOTS);
        // Scoring a prompt asks for the logits of many positions.
        options.load.output_rows = options.load.output_rows.or(Some((*slots).max(32)));
        let library = Library::new(engine, options.load.clone(), options.keep_alive);
        let mut served = BTreeMap::new();
        for name in options.preload.iter().chain(&options.default_model) {
            if let Ok(Some(found)) = hub.locate(name) {
                served.insert(public_name(name), found);
            }
        }
        if options.null_model {
            let path = kun_engine::null::path().to_owned();
            let found = ModelPath { path, name: NULL.to_owned(), source: String::new(), license: None };
            served.insert(NULL.to_owned(), found);
            options.preload.push(NULL.to_owned());
            options.default_model.get_or_insert_with(|| NULL.to_owned());
        }
        Arc::new(App {
            library,
            hub,
            metrics: Metrics::default(),
            tracer: OnceLock::new(),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            over: watch::Sender::new(false),
            fetcher: options.image_urls.map(PublicFetcher::new),
            batches: OnceLock::new(),
            fetching: Mutex::default(),
            pixels: Arc::new(Semaphore::new(crate::tasks::image::DECODE_MIB as usize)),
            bodies: Arc::new(Semaphore::new(options.limits.bodies_bytes >> 10)),
            queue: Mutex::default(),
            responses: Mutex::default(),
            served,
            facts: Mutex::default(),
            options,
        })
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        // Counters that are changed in one statement each.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the number of pictures that are being fetched for a tenant.
    pub(crate) fn fetches(&self, tenant: Tenant, change: impl FnOnce(&mut usize)) {
        let mut all = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(tenant).or_default();
        change(count);
        if *count == 0 {
            all.remove(&tenant);
        }
    }

    /// Sequences decoded together.
    pub(crate) fn slots(&self) -> usize {
        self.options.load.max_sequences.unwrap_or(DEFAULT_SLOTS)
    }

    /// The name of the model that stands for all.
    pub(crate) fn default_model(&self) -> String {
        self.options
            .default_model
            .as_deref()
            .map_or_else(|| self.hub.catalog().default_chat().to_owned(), public_name)
    }

    /// The place of the model that a request names. Requests name models, never paths.
    pub(crate) fn locate(&self, name: &str) -> Result<ModelPath, Refusal> {
        let alias = self.options.aliases.iter().find(|(alias, _)| alias == name);
        let name = alias.map_or(name, |(_, target)| target.as_str());
        // Ollama's clients write a tag after every name.
        let plain = name.strip_suffix(":latest").unwrap_or(name);
        if let Some(found) = self.served.get(plain) {
            return Ok(found.clone());
        }
        let unknown = || {
            let short: String = name.chars().take(200).collect();
            Refusal::invalid(
                "model",
                format!("The model `{short}` does not exist here; `kun pull` fetches models."),
            )
        };
        let missing = || Refusal { kind: Kind::NotFound, ..unknown() }.code("model_not_found");
        let named = match ModelName::parse(plain) {
            Ok(
                ModelName::Alias { .. }
                | ModelName::Hub(_)
                | ModelName::ModelScope(_)
                | ModelName::Ollama { .. },
            ) => self.hub.locate(plain).ok().flatten(),
            _ => None,
        };
        // A repository's name may also be that of a folder beside the server: only the store counts.
        let named = named.filter(|found| found.source != "local folder" && found.source != "local file");
        if let Some(found) = named {
            return Ok(found);
        }
        let stored = self.stored().into_iter().find(|model| model.name == plain).ok_or_else(missing)?;
        Ok(stored.into())
    }

    /// The names of models by their paths.
    pub(crate) fn names(&self) -> BTreeMap<PathBuf, String> {
        self.listed().into_iter().map(|model| (model.path, model.name)).collect()
    }

    /// Every model that can be asked for: those given at the start, then the others of the store. Blocks.
    pub(crate) fn listed(&self) -> Vec<StoredModel> {
        let stored = self.stored();
        let served = self.served.iter().map(|(name, found)| {
            match stored.iter().find(|model| model.path == found.path) {
                Some(model) => StoredModel { name: name.clone(), ..model.clone() },
                None => StoredModel::at(name, found),
            }
        });
        let mut all: Vec<StoredModel> = served.collect();
        let is_new = |model: &StoredModel| self.served.values().all(|served| served.path != model.path);
        all.extend(stored.iter().filter(|model| is_new(model)).cloned());
        all
    }

    /// Every model of the store.
    pub(crate) fn stored(&self) -> Vec<StoredModel> {
        self.hub.list().unwrap_or_default()
    }

    /// What the files of a text model say, read once for as long as they stay as they are; `None` for models of other kinds.
    /// Blocks.
    pub(crate) fn facts(&self, path: &Path) -> Option<Arc<Fit>> {
        let changed = std::fs::metadata(path).and_then(|file| file.modified()).ok();
        let known = || self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, fit)) = known().get(path).filter(|(when, _)| *when == changed) {
            return fit.clone();
        }
        let fit = self.library.engine().fit(path, &self.options.load).ok().map(Arc::new);
        known().insert(path.to_owned(), (changed, fit.clone()));
        fit
    }

    /// Models given by path at the start.
    pub(crate) fn served(&self) -> &BTreeMap<String, ModelPath> {
        &self.served
    }

    /// Loads a model of any kind, for what it says that it is for. Blocks.
    pub(crate) fn load(&self, name: &str) -> Result<u64, Refusal> {
        let found = self.locate(name)?;
        let used_for = match looks_at(&found.path) {
            None => Use::Text,
            Some(Looks::Pages) => Use::Pages,
            Some(Looks::Drawing) => Use::Drawing,
            Some(Looks::Verb(verb)) => Use::Pictures(verb),
            Some(Looks::Unknown) => Use::Pictures(verb_of(&found.path, &VisionOptions::default())?),
        };
        Ok(self.library.get_for(&found.path, used_for)?.memory_bytes())
    }

    /// A model for texts, loaded. Blocks.
    pub(crate) fn for_text(&self, name: &str, found: &ModelPath) -> Result<Resident, Refusal> {
        self.library.get(&found.path).map_err(|error| match looks_at(&found.path) {
            Some(_) => for_pictures(name),
            None => error.into(),
        })
    }

    /// The decoder that a request names, loaded. Blocks.
    pub(crate) fn decoder(&self, name: &str) -> Result<Chosen, Refusal> {
        let found = self.locate(name)?;
        match self.for_text(name, &found)? {
            Resident::Decoder(model) => Ok(Chosen { name: name.to_owned(), path: found.path, model }),
            _ => Err(Refusal::invalid("model", format!("`{name}` does not generate text."))
                .code("model_not_supported")),
        }
    }

    /// The encoder that a request names, loaded. Blocks.
    pub(crate) fn encoder(&self, name: &str) -> Result<Arc<LoadedEncoder>, Refusal> {
        self.encoder_at(name, &self.locate(name)?)
    }

    /// The encoder that was found by this name, loaded. Blocks.
    pub(crate) fn encoder_at(&self, name: &str, found: &ModelPath) -> Result<Arc<LoadedEncoder>, Refusal> {
        match self.for_text(name, found)? {
            Resident::Encoder(model) => Ok(model),
            _ => {
                Err(Refusal::invalid("model", format!("`{name}` gives no vectors."))
                    .code("model_not_supported"))
            }
        }
    }

    /// Models that are within a step, and how long it has run.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (PathBuf, Duration)> {
        let shelves = self.library.shelves().into_iter();
        shelves.filter_map(|shelf| match shelf.model {
            Some(Resident::Decoder(model)) => Some((shelf.path, model.step_time()?)),
            _ => None,
        })
    }

    /// What `/metrics` reads off the library.
    pub(crate) fn gauges(&self) -> Gauges {
        let shelves = self.library.shelves();
        let pages = shelves.iter().filter_map(|shelf| match &shelf.model {
            Some(Resident::Decoder(model)) => {
                let pages = model.pages();
                let name = model.info().name.clone().unwrap_or_else(|| model.info().architecture.clone());
                Some((name, [pages.in_use, pages.cached, pages.free]))
            }
            _ => None,
        });
        Gauges {
            in_flight: self.in_flight(),
            waiting: self.waiting(),
            memory_used_bytes: shelves.iter().map(|shelf| shelf.memory_bytes).sum(),
            memory_budget_bytes: self.library.budget_bytes(),
            pages: pages.collect(),
            longest_step: self.steps().map(|(_, time)| time).max().unwrap_or_default(),
        }
    }
}

/// The name of the model that computes nothing.
const NULL: &str = "null";

/// Sequences decoded together unless asked otherwise.
const DEFAULT_SLOTS: usize = 16;

/// The name that clients see: a path's own name without its folders.
pub(crate) fn public_name(name: &str) -> String {
    match ModelName::parse(name) {
        Ok(ModelName::Path(path)) => {
            let stem = if path.extension().is_some_and(|e| e == "gguf" || e == "onnx") {
                path.file_stem()
            } else {
                path.file_name()
            };
            stem.and_then(|stem| stem.to_str()).unwrap_or(name).to_owned()
        }
        _ => name.to_owned(),
    }
}

/// The refusal of a task of texts.
pub(crate) fn for_pictures(name: &str) -> Refusal {
    Refusal::invalid("model", format!("`{name}` is for pictures, not for texts.")).code("model_not_supported")
}
