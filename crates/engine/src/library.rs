//! Models by path: loaded when first asked for, kept inside one memory budget, let go when idle.

mod resident;

pub use resident::{Resident, Use};

use crate::{Engine, EngineError, LoadOptions, Loading, budget};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a library knows of one model.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// Its file or folder.
    pub path: PathBuf,
    /// What it was loaded for.
    pub used_for: Use,
    /// How far it is: 1 when loaded.
    pub progress: f32,
    /// Bytes it takes; 0 while it loads.
    pub memory_bytes: u64,
    /// Time since somebody asked for it.
    pub idle: Duration,
    /// How long it stays unused; `None`: until its memory is needed.
    pub keep_alive: Option<Duration>,
    /// The model, once loaded.
    pub model: Option<Resident>,
}

#[derive(Debug)]
enum Slot {
    /// Thousandths of the weights.
    Loading(Arc<AtomicU64>),
    Loaded {
        model: Resident,
        used: Instant,
        keep_alive: Option<Duration>,
    },
}

/// A file, and what it is used for: one file may hold a network for several verbs.
type Key = (PathBuf, Use);

/// Loads models on demand and keeps them within one memory budget.
#[derive(Debug)]
pub struct Library {
    engine: Engine,
    options: LoadOptions,
    budget_bytes: u64,
    keep_alive: Option<Duration>,
    slots: Mutex<BTreeMap<Key, Slot>>,
    changed: Condvar,
}

impl Library {
    /// An empty library; models are loaded with `options`, whose memory budget holds for all of them together, and
    /// let go `keep_alive` after their last use.
    pub fn new(engine: Engine, options: LoadOptions, keep_alive: Option<Duration>) -> Library {
        let budget_bytes = options.max_memory_bytes.or_else(budget::available_bytes).unwrap_or(u64::MAX);
        Library {
            engine,
            options,
            budget_bytes,
            keep_alive,
            slots: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Bytes that all models together may take.
    pub fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<Key, Slot>> {
        // Every change of the map is one call that cannot panic halfway.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model at `path` for texts, loaded if need be; others that nobody uses make room. Blocks.
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::DoesNotFit`] if models in use leave too little.
    pub fn get(&self, path: &Path) -> Result<Resident, EngineError> {
        self.get_for(path, Use::Text)
    }

    /// [`Library::get`] for any use.
    ///
    /// # Errors
    /// As [`Library::get`].
    pub fn get_for(&self, path: &Path, used_for: Use) -> Result<Resident, EngineError> {
        let key = (path.to_owned(), used_for);
        let mut slots = self.slots();
        loop {
            match slots.get_mut(&key) {
                Some(Slot::Loaded { model, .. }) if model.has_failed() => {
                    tracing::error!(path = %path.display(), "the model's worker has failed: it is loaded anew");
                    let failed = slots.remove(&key);
                    drop(slots);
                    // Outside the lock: giving memory back takes a moment.
                    drop(failed);
                    slots = self.slots();
                }
                Some(Slot::Loaded { model, used, .. }) => {
                    *used = Instant::now();
                    return Ok(model.clone());
                }
                Some(Slot::Loading(_)) => {
                    slots = self.changed.wait(slots).unwrap_or_else(PoisonError::into_inner);
                }
                None => break,
            }
        }
        let progress = Arc::new(AtomicU64::new(0));
        slots.insert(key.clone(), Slot::Loading(progress.clone()));
        drop(slots);
        // Whatever happens to this load, those who wait for it hear of it.
        let place = Place { library: self, key: &key, model: None };
        self.load(&progress, place)
    }

    fn load(&self, progress: &AtomicU64, mut place: Place<'_>) -> Result<Resident, EngineError> {
        loop {
            let taken: u64 = self.slots().values().map(memory_of).fold(0, u64::saturating_add);
            let options = LoadOptions {
                max_memory_bytes: Some(self.budget_bytes.saturating_sub(taken)),
                ..self.options.clone()
            };
            let report = |l: Loading| {
                progress.store(l.done_bytes.saturating_mul(1000) / l.total_bytes.max(1), Ordering::Relaxed);
            };
            let (path, used_for) = place.key;
            match Resident::load(&self.engine, path, *used_for, &options, report) {
                Ok(model) => {
                    place.model = Some(model.clone());
                    return Ok(model);
                }
                Err(EngineError::DoesNotFit { .. }) if self.evict_oldest() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets the idle model go that was asked for longest ago; `false` if every model is in use.
    fn evict_oldest(&self) -> bool {
        let mut slots = self.slots();
        let idle = slots.iter().filter_map(|(key, slot)| match slot {
            Slot::Loaded { model, used, .. } if !model.in_use() => Some((*used, key.clone())),
            _ => None,
        });
        let Some((_, key)) = idle.min() else { return false };
        let slot = slots.remove(&key);
        drop(slots);
        // Outside the lock: dropping a model waits for its worker.
        drop(slot);
        true
    }

    /// Lets go of models whose time is over; call it now and then.
    pub fn sweep(&self) {
        let mut slots = self.slots();
        let over: Vec<Slot> = slots
            .extract_if(.., |_, slot| match slot {
                Slot::Loaded { model, used, keep_alive } => {
                    !model.in_use() && keep_alive.is_some_and(|limit| used.elapsed() >= limit)
                }
                Slot::Loading(_) => false,
            })
            .map(|(_, slot)| slot)
            .collect();
        drop(slots);
        drop(over);
    }

    /// Lets a model go: at once, or once its last answer has ended. `false` if it was not loaded.
    pub fn unload(&self, path: &Path) -> bool {
        let mut slots = self.slots();
        let of_path = |(own, _): &Key, slot: &mut Slot| own == path && matches!(slot, Slot::Loaded { .. });
        let gone: Vec<Slot> = slots.extract_if(.., of_path).map(|(_, slot)| slot).collect();
        drop(slots);
        !gone.is_empty()
    }

    /// Sets how long one loaded model stays unused.
    pub fn keep(&self, path: &Path, time: Option<Duration>) {
        for ((own, _), slot) in self.slots().iter_mut() {
            if let (true, Slot::Loaded { keep_alive, used, .. }) = (own == path, slot) {
                (*keep_alive, *used) = (time, Instant::now());
            }
        }
    }

    /// The model at `path`, if it is loaded for anything.
    pub fn loaded(&self, path: &Path) -> Option<Resident> {
        self.slots().iter().find_map(|((own, _), slot)| match slot {
            Slot::Loaded { model, .. } if own == path => Some(model.clone()),
            _ => None,
        })
    }

    /// Every model that is loaded or loading.
    pub fn shelves(&self) -> Vec<Shelf> {
        let slots = self.slots();
        let shelf = |((path, used_for), slot): (&Key, &Slot)| match slot {
            Slot::Loading(progress) => Shelf {
                path: path.clone(),
                used_for: *used_for,
                progress: progress.load(Ordering::Relaxed) as f32 / 1000.0,
                memory_bytes: 0,
                idle: Duration::ZERO,
                keep_alive: None,
                model: None,
            },
            Slot::Loaded { model, used, keep_alive } => Shelf {
                path: path.clone(),
                used_for: *used_for,
                progress: 1.0,
                memory_bytes: model.memory_bytes(),
                idle: used.elapsed(),
                keep_alive: *keep_alive,
                model: Some(model.clone()),
            },
        };
        slots.iter().map(shelf).collect()
    }
}

fn memory_of(slot: &Slot) -> u64 {
    match slot {
        Slot::Loading(_) => 0,
        Slot::Loaded { model, .. } => model.memory_bytes(),
    }
}

/// The slot of a model that is being loaded: filled or emptied when this goes.
struct Place<'a> {
    library: &'a Library,
    key: &'a Key,
    model: Option<Resident>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut slots = self.library.slots();
        match self.model.take() {
            Some(model) => {
                let keep_alive = self.library.keep_alive;
                slots.insert(self.key.clone(), Slot::Loaded { model, used: Instant::now(), keep_alive });
            }
            None => drop(slots.remove(self.key)),
        }
        drop(slots);
        self.library.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::{Library, Resident};
    use crate::{Engine, EngineError, Event, EventSink, GenerateRequest, LoadOptions, Prompt};
    use std::time::Duration;

    /// A fault of this program in the thread of the worker.
    struct Fault;

    impl EventSink for Fault {
        fn admitted(&mut self) {
            panic!("a fault that the test makes");
        }
        fn event(&mut self, _: Result<Event, EngineError>) -> bool {
            true
        }
    }

    #[test]
    fn a_model_whose_worker_fails_is_loaded_anew() {
        let library = Library::new(Engine::new(), LoadOptions::default(), None);
        let decoder = || match library.get(crate::null::path()) {
            Ok(Resident::Decoder(model)) => model,
            other => panic!("{other:?}"),
        };
        let request = || GenerateRequest {
            max_tokens: Some(2),
            ignore_end: true,
            ..GenerateRequest::new(Prompt::Text("x".to_owned()))
        };
        let failing = decoder();
        library.engine().generate_into(&failing, request(), Box::new(Fault)).unwrap();
        while !failing.has_failed() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let fresh = decoder();
        assert!(!fresh.has_failed());
        assert!(library.engine().generate(&fresh, request()).unwrap().all(|event| event.is_ok()));
        assert!(fresh.step_time().is_none());
    }
}
