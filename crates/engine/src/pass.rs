//! One-pass models: a queue, a worker thread, and batches of whatever waits.

use crate::EngineError;
use kun_tasks::Task;
use kun_tensor::Tensors;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// A compiled model that answers in one forward pass. It says itself how items share a pass: texts packed without
/// padding, images of one shape stacked.
pub trait Pass: Send + 'static {
    /// What an item costs in a batch (tokens, pixels), in the unit of [`Pass::budget`].
    fn cost(&self, item: &Tensors) -> usize;
    /// The most that a batch may cost; a single item may cost more.
    fn budget(&self) -> usize;
    /// Runs one batch; gives one result per item, in order. An item that fails does not fail the others.
    fn run(&mut self, batch: Vec<Tensors>) -> Vec<Result<Tensors, EngineError>>;
    /// Takes items that wait, also those that come meanwhile, and runs each on one thread, as many at once as there are
    /// threads: more in a second than one after the other on all threads, and each takes longer. `false`, and nothing
    /// taken, if that is no gain for those that wait.
    fn run_each(&mut self, waiting: &Waiting) -> bool {
        let _ = waiting;
        false
    }
}

/// One of many inputs, and who waits for its answer.
#[derive(Debug)]
pub struct Item {
    index: usize,
    tensors: Tensors,
    reply: Sender<(usize, Result<Tensors, EngineError>)>,
}

impl Item {
    /// The input, and where its answer goes.
    pub fn split(self) -> (Tensors, Reply) {
        (self.tensors, Reply { index: self.index, to: self.reply })
    }
}

/// Who waits for an answer.
#[derive(Debug)]
pub struct Reply {
    index: usize,
    to: Sender<(usize, Result<Tensors, EngineError>)>,
}

impl Reply {
    /// Gives it.
    pub fn give(self, answer: Result<Tensors, EngineError>) {
        // A caller that left wants no answer.
        let _ = self.to.send((self.index, answer));
    }
}

/// Items in the order in which they came.
#[derive(Debug)]
pub struct Waiting(Mutex<(VecDeque<Item>, Receiver<Item>)>);

impl Waiting {
    fn line(&self) -> MutexGuard<'_, (VecDeque<Item>, Receiver<Item>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody waits; `false` when nobody can come any more.
    fn wait(&self) -> bool {
        let (line, items) = &mut *self.line();
        if line.is_empty() {
            line.extend(items.recv());
        }
        line.extend(items.try_iter());
        !line.is_empty()
    }

    /// How many wait, and what `look` says of the first.
    pub fn first<T>(&self, look: impl FnOnce(&Tensors) -> T) -> Option<(usize, T)> {
        let (line, items) = &mut *self.line();
        line.extend(items.try_iter());
        line.front().map(|first| (line.len(), look(&first.tensors)))
    }

    /// The first, if `fits` says so.
    pub fn next_if(&self, fits: impl FnOnce(&Tensors) -> bool) -> Option<Item> {
        let (line, items) = &mut *self.line();
        line.extend(items.try_iter());
        line.pop_front_if(|first| fits(&first.tensors))
    }
}

/// A loaded one-pass model: its worker thread owns the [`Pass`].
#[derive(Debug)]
pub struct PassModel {
    queue: Option<Sender<Item>>,
    thread: Option<JoinHandle<()>>,
}

impl PassModel {
    /// Starts the worker of `pass`.
    ///
    /// # Errors
    /// [`EngineError::Thread`].
    pub fn start(pass: impl Pass) -> Result<PassModel, EngineError> {
        let (queue, items) = channel();
        let thread = std::thread::Builder::new()
            .name("kun-pass".to_owned())
            .spawn(move || work(pass, &Waiting(Mutex::new((VecDeque::new(), items)))))
            .map_err(EngineError::Thread)?;
        Ok(PassModel { queue: Some(queue), thread: Some(thread) })
    }

    /// Whether its worker has ended by a fault: it answers nothing any more.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// One forward pass over each item, batched with whatever else waits; results in the order of the items.
    ///
    /// # Errors
    /// Per item: what [`Pass::run`] says, or [`EngineError::Unloaded`].
    pub fn infer(&self, items: Vec<Tensors>) -> Vec<Result<Tensors, EngineError>> {
        let mut results: Vec<Result<Tensors, EngineError>> =
            items.iter().map(|_| Err(EngineError::Unloaded)).collect();
        let (reply, replies) = channel();
        if let Some(queue) = &self.queue {
            for (index, tensors) in items.into_iter().enumerate() {
                if queue.send(Item { index, tensors, reply: reply.clone() }).is_err() {
                    break;
                }
            }
        }
        drop(reply);
        for (index, result) in replies {
            results[index] = result;
        }
        results
    }

    /// Runs a task on one input.
    ///
    /// # Errors
    /// [`EngineError::Task`] from the task's two halves, or what the pass says.
    pub fn run<T: Task>(&self, task: &T, input: T::Input) -> Result<T::Output, EngineError> {
        self.run_many(task, vec![input]).pop().unwrap_or(Err(EngineError::Unloaded))
    }

    /// Runs a task on many inputs; results in their order. One that fails does not fail the others.
    pub fn run_many<T: Task>(&self, task: &T, inputs: Vec<T::Input>) -> Vec<Result<T::Output, EngineError>> {
        let mut items = Vec::new();
        let prepared: Vec<Result<T::Context, EngineError>> = inputs
            .into_iter()
            .map(|input| {
                let (tensors, context) = task.prepare(input)?;
                items.push(tensors);
                Ok(context)
            })
            .collect();
        let mut outputs = self.infer(items).into_iter();
        prepared
            .into_iter()
            .map(|context| {
                let context = context?;
                let outputs = outputs.next().unwrap_or(Err(EngineError::Unloaded))?;
                Ok(task.finish(outputs, context)?)
            })
            .collect()
    }
}

impl Drop for PassModel {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the worker was already answered with `Unloaded`.
            let _ = thread.join();
        }
    }
}

fn work(mut pass: impl Pass, waiting: &Waiting) {
    while waiting.wait() {
        if pass.run_each(waiting) {
            continue;
        }
        let (budget, mut cost) = (pass.budget(), 0usize);
        let mut batch = Vec::new();
        while let Some(item) = waiting.next_if(|next| {
            cost = cost.saturating_add(pass.cost(next));
            batch.is_empty() || cost <= budget
        }) {
            batch.push(item);
        }
        let (tensors, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(Item::split).unzip();
        for (reply, result) in replies.into_iter().zip(pass.run(tensors)) {
            reply.give(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kun_tasks::TaskError;
    use kun_tensor::Tensor;
    use std::sync::{Arc, Mutex};

    /// Doubles `x`; refuses empty ones; remembers the sizes of its batches.
    struct Double(Arc<Mutex<Vec<usize>>>);

    impl Pass for Double {
        fn cost(&self, item: &Tensors) -> usize {
            item["x"].elements().len()
        }
        fn budget(&self) -> usize {
            4
        }
        fn run(&mut self, batch: Vec<Tensors>) -> Vec<Result<Tensors, EngineError>> {
            self.0.lock().unwrap().push(batch.iter().map(|item| self.cost(item)).sum());
            batch
                .into_iter()
                .map(|item| {
                    let x = item["x"].as_f32().unwrap_or_default();
                    if x.is_empty() {
                        return Err(EngineError::Mismatch { what: "empty".to_owned() });
                    }
                    let doubled = x.iter().map(|v| v * 2.0).collect::<Vec<_>>();
                    let tensor = Tensor::f32([doubled.len()], doubled).expect("one dimension");
                    Ok(Tensors::from([("y".to_owned(), tensor)]))
                })
                .collect()
        }
    }

    struct Sum;

    impl Task for Sum {
        type Input = Vec<f32>;
        type Output = f32;
        type Context = usize;
        fn prepare(&self, input: Vec<f32>) -> Result<(Tensors, usize), TaskError> {
            if input.contains(&-1.0) {
                return Err(TaskError::Input { what: "-1".to_owned() });
            }
            let len = input.len();
            Ok((Tensors::from([("x".to_owned(), Tensor::f32([len], input)?)]), len))
        }
        fn finish(&self, outputs: Tensors, len: usize) -> Result<f32, TaskError> {
            let y = outputs["y"].as_f32().unwrap_or_default();
            assert_eq!(y.len(), len);
            Ok(y.iter().sum())
        }
    }

    #[test]
    fn answers_in_order_and_one_failure_is_its_own() {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let model = PassModel::start(Double(batches.clone())).unwrap();
        let inputs = vec![vec![1.0], vec![-1.0], vec![], vec![1.0, 2.0], vec![3.0; 5], vec![4.0]];
        let results = model.run_many(&Sum, inputs);
        let values: Vec<Option<f32>> = results.iter().map(|r| r.as_ref().ok().copied()).collect();
        assert_eq!(values, [Some(2.0), None, None, Some(6.0), Some(30.0), Some(8.0)]);
        assert!(matches!(results[1], Err(EngineError::Task(_))));
        assert!(matches!(results[2], Err(EngineError::Mismatch { .. })));
        // Only a single item may cost more than the budget.
        assert!(batches.lock().unwrap().iter().all(|&cost| cost <= 4 || cost == 5));
        assert!(model.run(&Sum, vec![2.5]).is_ok_and(|sum| sum == 5.0));
    }
}
