//! Runs `kun` with a clean environment and its own folders.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder that is gone when the test ends.
pub struct Scratch(kun_testkit::Scratch);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(kun_testkit::Scratch::new("cli"))
    }

    pub fn path(&self) -> &Path {
        self.0.folder()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        self.0.write(name, text).into()
    }

    /// `kun` with this folder as home and current folder, no variable of the caller, and an empty stdin.
    pub fn kun(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kun"));
        command.args(args).current_dir(self.path()).env_clear();
        command.env("HOME", self.path()).env("PATH", "/usr/bin:/bin").env("HF_HUB_OFFLINE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.kun(args).output().unwrap())
    }

    pub fn run_with_stdin(&self, args: &[&str], stdin: &[u8]) -> Ran {
        use std::io::Write;
        let mut child = self.kun(args).stdin(Stdio::piped()).spawn().unwrap();
        // kun may end before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        Ran::from(child.wait_with_output().unwrap())
    }
}

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// A file of the shared test models, which stand beside the repository.
pub fn shared(file: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let path = Path::new(root).join(file);
    assert!(path.exists(), "{} is missing: these tests need ../shared beside the repository", path.display());
    path.canonicalize().unwrap().to_str().unwrap().to_owned()
}

pub fn stories() -> String {
    shared("models/llm/stories260k/stories260k.f32.gguf")
}

/// What the reference implementation says about the stories models.
pub fn expected() -> serde_json::Value {
    let text = std::fs::read_to_string(shared("models/llm/stories260k/expected/expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The stories model with a longer window than it was trained for: what it writes there is no story, but it takes a
/// while, so that there is something to interrupt.
pub fn endless(scratch: &Scratch) -> String {
    let from = shared("models/llm/stories260k/hf");
    let folder = scratch.path().join("endless");
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(Path::new(&from).join(file), folder.join(file)).unwrap();
    }
    let config = folder.join("config.json");
    let mut json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    json["max_position_embeddings"] = 100_000.into();
    std::fs::write(config, json.to_string()).unwrap();
    folder.to_str().unwrap().to_owned()
}
