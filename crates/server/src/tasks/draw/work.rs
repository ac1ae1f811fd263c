//! Pictures in the making, away from the threads that serve connections.

use super::check_pixels;
use crate::App;
use crate::error::{Kind, Refusal};
use crate::queue::Permit;
use crate::routes::Call;
use crate::tasks::choice::unsuitable;
use crate::tasks::image::Picture;
use kun_engine::tasks::TaskError;
use kun_engine::tasks::pixels::{FileKind, PixelError, encode};
use kun_engine::vision::Stage;
use kun_engine::{DiffusionModel, DrawPlan, DrawRequest, EngineError, Resident, Use};
use std::sync::Arc;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

/// Steps that may wait for whoever asked.
const WAITING_STEPS: usize = 16;

/// What is to be drawn.
pub(super) struct Order {
    pub(super) request: DrawRequest,
    pub(super) count: usize,
    pub(super) kind: FileKind,
    /// Partial pictures of each.
    pub(super) partial_images: usize,
    /// Its place among the requests.
    pub(super) _permits: Vec<Permit>,
    /// The places of its pictures in memory.
    pub(super) _held: Vec<Picture>,
}

/// What the work tells, each of the picture of that index.
pub(super) enum Step {
    Passes { index: usize, done: usize, all: usize },
    Partial { index: usize, number: usize, bytes: Vec<u8> },
    Picture { index: usize, seed: u64, bytes: Vec<u8> },
}

/// Work that runs. Dropping it ends it after the pass that runs.
pub(super) struct Work {
    steps: Receiver<Step>,
    drawing: Option<JoinHandle<Result<(), Refusal>>>,
    over: watch::Receiver<bool>,
    model: String,
    plan: DrawPlan,
}

impl Work {
    /// Loads the model, looks whether it can do it all, and begins.
    pub(super) async fn start(app: &Arc<App>, name: Option<&str>, order: Order) -> Result<Work, Refusal> {
        let (app2, name) = (app.clone(), name.map(str::to_owned));
        let (name, model, plan, order) = Call::blocking(move || {
            let (name, model) = app2.picture_model(name.as_deref(), Use::Drawing)?;
            let Resident::Drawing(model) = model else { return Err(unsuitable(&name, "draws no pictures")) };
            let plan = model.plan(&order.request)?;
            check_pixels(plan.width, plan.height, order.count, app2.options.limits.image_megapixels)?;
            Ok((name, model, plan, order))
        })
        .await?;
        let (to, steps) = channel(WAITING_STEPS);
        let drawing = Some(spawn_blocking(move || order.draw(&model, &to)));
        Ok(Work { steps, drawing, over: app.over.subscribe(), model: name, plan })
    }

    /// The next step; none after the last picture. An error once a stopping server waits no longer.
    pub(super) async fn next(&mut self) -> Option<Result<Step, Refusal>> {
        let step = tokio::select! {
            biased;
            step = self.steps.recv() => step,
            _ = self.over.wait_for(|over| *over) => {
                return Some(Err(Refusal::new(Kind::Unavailable, "The server has stopped.")));
            }
        };
        match step {
            Some(step) => Some(Ok(step)),
            None => Call::joined(self.drawing.take()?.await).err().map(Err),
        }
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// `512x384`.
    pub(super) fn size(&self) -> String {
        format!("{}x{}", self.plan.width, self.plan.height)
    }

    /// Tokens of the words of one picture.
    pub(super) fn prompt_tokens(&self) -> usize {
        self.plan.prompt_tokens
    }
}

impl Order {
    /// Draws one picture after the other until nobody listens.
    fn draw(self, model: &DiffusionModel, to: &Sender<Step>) -> Result<(), Refusal> {
        for index in 0..self.count {
            let seed = self.request.seed.wrapping_add(index as u64);
            let request = DrawRequest { seed, ..self.request.clone() };
            let mut number = 0;
            let drawn = model.draw_in_stages(&request, self.partial_images, &mut |stage| {
                let step = match stage {
                    Stage::Passes { done, all } => Step::Passes { index, done, all },
                    Stage::Partial(image) => {
                        number += 1;
                        // Where it cannot be written, the whole picture cannot either, and says why.
                        let Ok(bytes) = encode(&image, self.kind) else { return true };
                        Step::Partial { index, number: number - 1, bytes }
                    }
                };
                to.blocking_send(step).is_ok()
            });
            let drawn = match drawn {
                Err(EngineError::Cancelled) => return Ok(()),
                drawn => drawn?,
            };
            let bytes = encode(&drawn, self.kind).map_err(failed)?;
            if to.blocking_send(Step::Picture { index, seed, bytes }).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn failed(error: PixelError) -> Refusal {
    EngineError::Task(TaskError::Input { what: error.to_string() }).into()
}
