//! Models for functions, found by the hub.

use crate::args::GlobalArgs;
use crate::commands::App;
use crate::config::hub_settings;
use crate::interrupt::Farewell;
use crate::progress::Reporter;
use crate::terminal::Messages;
use kun_bulk::{FoundModel, Models, OutsideError};
use kun_hub::Hub;

/// Finds models by name, and fetches those that are not here.
pub struct HubModels {
    global: GlobalArgs,
    messages: Messages,
}

impl HubModels {
    /// With the flags of this command.
    pub fn new(app: &App) -> HubModels {
        HubModels { global: app.global().clone(), messages: app.messages() }
    }
}

impl Models for HubModels {
    fn find(&self, task: &str, name: Option<&str>) -> Result<FoundModel, OutsideError> {
        let hub = Hub::new(hub_settings(&self.global).options);
        let catalog = hub.catalog();
        let name = match (name, task) {
            (Some(name), _) => name,
            (None, "generate") => catalog.default_chat(),
            (None, "embed" | "rerank" | "classify") => catalog.default_embed(),
            (None, task) => catalog.default_for(task).ok_or_else(|| {
                format!("`{task}` has no usual model: name one, as in {task}(.., model = './model')")
            })?,
        };
        let _farewell = Farewell::new("Stopped. The same command takes the download up where it was.");
        let mut reporter = Reporter::new(self.global.progress, self.messages);
        let found = hub.fetch(name, &mut |event| reporter.report(event))?;
        Ok(FoundModel { name: found.name, path: found.path })
    }
}
