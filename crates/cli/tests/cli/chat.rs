//! The conversation, through a pseudo-terminal.

use crate::support::{Scratch, endless, stories};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn start(scratch: &Scratch, args: &[&str]) -> Terminal {
        let (mut master, mut slave) = (-1, -1);
        let none = std::ptr::null_mut();
        // SAFETY: both out-pointers are valid integers; name, settings and size may be null.
        let opened = unsafe { libc::openpty(&mut master, &mut slave, none, none.cast(), none.cast()) };
        assert_eq!(opened, 0);
        // SAFETY: `openpty` has just given us both descriptors; nobody else owns them.
        let (master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let mut command = scratch.kun(args);
        command.env("TERM", "xterm").stdin(slave.try_clone().unwrap());
        command.stdout(slave.try_clone().unwrap()).stderr(Stdio::from(slave));
        // SAFETY: the closure calls only `setsid` and `ioctl`, which are safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                // A session of its own with this terminal, so that Ctrl-C reaches the child alone.
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        // The command holds copies of the terminal's other end; without them the reader sees the child's end.
        drop(command);
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { child, keyboard, screen, seen: String::new() }
    }

    fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` appears, and gives what came up to it.
    fn wait_for(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            match self.screen.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {text:?} in {:?}", self.seen)
                }
            }
        }
    }

    /// Waits until the line editor reads again: it asks the terminal for bracketed paste then.
    fn prompt(&mut self) -> String {
        self.wait_for("\x1b[?2004h")
    }

    /// Types a line once the editor reads, and gives what came until it reads again.
    fn line(&mut self, text: &str) -> String {
        self.type_keys(&format!("{text}\r"));
        self.prompt()
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that failed half-way leaves no process behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_conversation_answers_obeys_commands_and_leaves() {
    let scratch = Scratch::new();
    let model = stories();
    let mut terminal = Terminal::start(&scratch, &["run", &model, "-n", "12", "--temperature", "0"]);
    terminal.wait_for("/help lists commands");
    terminal.prompt();
    let answer = terminal.line("Once upon a time");
    assert!(answer.contains(", there was"), "{answer:?}");
    assert!(terminal.line("/show").contains("messages  2"));
    terminal.line("\"\"\"one");
    terminal.line("two\"\"\"");
    terminal.line("three\\");
    terminal.line("four");
    assert!(terminal.line("/show").contains("messages  6"));
    assert!(terminal.line("/help").contains("/save FILE"));
    terminal.line("/set temperature 0.5");
    assert!(terminal.line("/show").contains("set       temperature 0.5"));
    assert!(terminal.line("/set kv-type q8_0").contains("holds for the whole session"));
    assert!(terminal.line("/set nonsense 1").contains("no flag --nonsense"));
    assert!(terminal.line("/save talk.json").contains("Saved 6 messages"));
    let talk: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(scratch.path().join("talk.json")).unwrap()).unwrap();
    assert_eq!(talk["messages"][0]["content"], "Once upon a time");
    assert_eq!(talk["messages"][2]["content"], "one\ntwo");
    assert_eq!(talk["messages"][4]["content"], "three\nfour");
    assert!(answer.contains(talk["messages"][1]["content"].as_str().unwrap().trim()), "{talk} {answer:?}");
    terminal.line("/clear");
    assert!(terminal.line("/show").contains("messages  0"));
    terminal.line("/system Be brief.");
    assert!(terminal.line("/show").contains("messages  1"));
    assert!(terminal.line("/nonsense").contains("No command /nonsense"));
    terminal.type_keys("/bye\r");
    assert_eq!(terminal.exit_code(), Some(0));
    let history = scratch.path().join(".local/state/kun/chat_history");
    assert!(std::fs::read_to_string(history).unwrap().contains("Once upon a time"));
}

#[test]
fn ctrl_c_stops_the_answer_and_keeps_the_session() {
    let scratch = Scratch::new();
    let model = endless(&scratch);
    let args = ["run", &model, "--ignore-end", "--context", "60000", "-t", "1"];
    let mut terminal = Terminal::start(&scratch, &args);
    terminal.prompt();
    terminal.type_keys("Once upon a time\r");
    // The editor has given the terminal back, and the answer has begun.
    terminal.wait_for("\x1b[?2004l\r\n");
    terminal.wait_for(" ");
    terminal.type_keys("\x03");
    terminal.wait_for("Stopped.");
    terminal.prompt();
    terminal.type_keys("\x03");
    terminal.wait_for("/bye or Ctrl-D leaves");
    terminal.prompt();
    assert!(terminal.line("/show").contains("messages  2"));
    terminal.type_keys("\x04");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn a_full_context_is_told_and_cuts_nothing() {
    let scratch = Scratch::new();
    let model = stories();
    let mut terminal = Terminal::start(&scratch, &["run", &model, "--context", "64", "-n", "4"]);
    terminal.prompt();
    let told = terminal.line(&"Once upon a time ".repeat(20));
    assert!(told.contains("/clear begins a new conversation") && told.contains("64"), "{told:?}");
    assert!(terminal.line("/show").contains("messages  0"));
    terminal.type_keys("/bye\r");
    assert_eq!(terminal.exit_code(), Some(0));
}
