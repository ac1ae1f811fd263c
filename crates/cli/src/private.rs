//! What a server's process keeps to itself: its memory and its faults may hold what clients say.

use std::panic::PanicHookInfo;

/// Lets no core dump keep this process's memory and no other process of its user read it; faults are told without the
/// values that they happened with.
///
/// # Errors
/// When the system refuses.
pub fn keep() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    std::panic::set_hook(Box::new(|fault| tracing::error!("{}", describe(fault))));
    Ok(())
}

/// Where a fault happened. What it says may quote a prompt, as that of a text cut within a letter does.
fn describe(fault: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    match fault.location() {
        Some(at) => format!("a fault of this program in thread {name} at {at}"),
        None => format!("a fault of this program in thread {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::describe;
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_fault_is_told_without_what_it_quotes() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |fault| heard.lock().unwrap().push(describe(fault))));
        let text = "kanarienvögel".to_owned();
        let cut = std::thread::Builder::new().name("cutting".to_owned());
        let end = cut.spawn(move || text[..10].len()).unwrap().join();
        std::panic::set_hook(before);
        assert!(end.is_err());
        let told = told.lock().unwrap();
        let ours = told.iter().find(|text| text.contains("thread cutting")).unwrap();
        assert!(ours.contains("private.rs") && !ours.contains("kanarien"), "{ours}");
    }
}
