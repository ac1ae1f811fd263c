//! The only reader of the environment and of configuration files.
//!
//! A setting is a long flag. Its value comes from the first that has it: the flag, `KUN_<FLAG>`, the project file
//! `kun.toml` of the current folder, the user file `config.toml`, the built-in default.

mod folders;
mod hub;

pub use folders::Folders;
pub use hub::{HubSettings, hub_settings};

use crate::args;
use crate::exit::Misuse;
use clap::{Arg, ArgAction, Command};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A file longer than this is no settings file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Settings that a project file may not give: a folder that somebody else wrote must not choose where models are
/// kept and trusted from, nor who may reach a server, nor which machines work for whom.
const NOT_IN_PROJECT_FILE: [&str; 14] = [
    "allow",
    "listen",
    "on",
    "scheduler",
    "cache-dir",
    "host",
    "unix-socket",
    "tls-cert",
    "tls-key",
    "api-key-file",
    "insecure-no-auth",
    "allowed-host",
    "cors-origin",
    "sandbox",
];

/// Whether `TERM` says that the terminal cannot move its cursor.
pub fn terminal_is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// `KUN_COLOR`, which clap's own messages need before the command line is parsed.
pub fn environment_color() -> Option<String> {
    std::env::var(args::environment_name(args::ASK, "color")).ok()
}

/// `KUN_API_KEY`: a key that a server asks for. It is no flag, because other users see the flags of a process.
pub fn api_key() -> Option<String> {
    std::env::var("KUN_API_KEY").ok().filter(|key| !key.is_empty())
}

/// `KUN_CLUSTER_TOKEN`: what the machines of a cluster know each other's jobs by. It is no flag, for the same reason.
#[cfg(feature = "cluster")]
pub fn cluster_token() -> Option<String> {
    std::env::var("KUN_CLUSTER_TOKEN").ok().filter(|token| !token.is_empty())
}

/// What clients of buckets read: `AWS_…`, `GOOGLE_…` and `AZURE_…`.
#[cfg(feature = "bulk")]
pub fn bucket_settings() -> std::collections::BTreeMap<String, String> {
    let known = |name: &str| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|start| name.starts_with(start));
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| known(name))
        .collect()
}

/// Where a value comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// `KUN_…`.
    Environment(String),
    /// A settings file.
    File(PathBuf),
    /// Built in.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Environment(name) => write!(f, "{name}"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Default => write!(f, "default"),
        }
    }
}

/// One setting in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// `temperature`, or `bench.repetitions` where only one verb has it.
    pub name: String,
    /// As text; `None`: unset.
    pub value: Option<String>,
    /// Where from.
    pub origin: Origin,
}

#[derive(Debug)]
struct Layer {
    path: PathBuf,
    table: toml::Table,
}

/// The settings files, project file first.
#[derive(Debug, Default)]
pub struct Files {
    layers: Vec<Layer>,
}

impl Files {
    /// Reads the project file of the current folder and the user file; a missing file is no error.
    ///
    /// # Errors
    /// A file that cannot be read, is not TOML, or names a setting that no flag has.
    pub fn read(folders: &Folders) -> anyhow::Result<Files> {
        let project = std::env::current_dir().map(|dir| dir.join("kun.toml")).ok();
        let user = folders.config.as_ref().map(|dir| dir.join("config.toml"));
        let mut files = Files::default();
        for (path, is_project) in [(project, true), (user, false)] {
            let Some(path) = path else { continue };
            let Some(text) = read_small(&path)? else { continue };
            files.layers.push(layer(path, &text, is_project)?);
        }
        Ok(files)
    }

    /// The value of `long` for `verb`: `[verb]` before the top of a file, the project file before the user file.
    fn find(&self, verb: &str, long: &str) -> Option<(Vec<String>, &Path)> {
        self.layers.iter().find_map(|layer| {
            let in_verb = layer.table.get(verb).and_then(toml::Value::as_table);
            let shared = (!args::is_own(verb, long)).then_some(&layer.table);
            let value = in_verb.and_then(|t| entry(t, long)).or_else(|| entry(shared?, long))?;
            Some((value_texts(value)?, layer.path.as_path()))
        })
    }

    /// Gives the files' values to `command` as defaults, below flags and environment.
    pub fn apply(&self, command: Command) -> Command {
        self.apply_to(command, args::ASK)
    }

    fn apply_to(&self, command: Command, verb: &str) -> Command {
        command
            .mut_args(|arg| match setting_name(&arg).and_then(|long| self.find(verb, long)) {
                Some((values, _)) if accepts_many(&arg) => arg.default_values(values),
                Some((mut values, _)) => match values.pop() {
                    Some(last) => arg.default_value(last),
                    None => arg,
                },
                None => arg,
            })
            .mut_subcommands(|sub| {
                let name = sub.get_name().to_owned();
                self.apply_to(sub, &name)
            })
    }

    /// The file that gives `long`, for messages about a bad value.
    pub fn origin_of(&self, long: &str) -> Option<&Path> {
        self.layers.iter().find_map(|layer| {
            let tables = layer.table.values().filter_map(toml::Value::as_table);
            let mut all = tables.chain(std::iter::once(&layer.table));
            all.any(|table| entry(table, long).is_some()).then_some(layer.path.as_path())
        })
    }

    /// Every setting in force, in the order of the command line. Flags are left out: they hold for one run.
    pub fn settings(&self) -> Vec<Setting> {
        let command = args::command();
        let mut seen = BTreeSet::new();
        let mut settings = Vec::new();
        self.collect(&command, args::ASK, "", &mut seen, &mut settings);
        for sub in command.get_subcommands() {
            self.collect(sub, sub.get_name(), &format!("{}.", sub.get_name()), &mut seen, &mut settings);
        }
        settings
    }

    fn collect(
        &self,
        command: &Command,
        verb: &str,
        prefix: &str,
        seen: &mut BTreeSet<String>,
        settings: &mut Vec<Setting>,
    ) {
        for arg in command.get_arguments() {
            let Some(long) = setting_name(arg) else { continue };
            let mut own = self.layers.iter().any(|l| {
                l.table.get(verb).and_then(toml::Value::as_table).is_some_and(|t| entry(t, long).is_some())
            });
            own |= args::is_own(verb, long);
            // A flag that several verbs share is one setting, unless a file gives this verb its own value.
            if !seen.insert(long.to_owned()) && !own {
                continue;
            }
            let shared = prefix.is_empty() || long == "json";
            let name = if shared && !own { long.to_owned() } else { format!("{verb}.{long}") };
            settings.push(self.resolve(arg, verb, long, name));
        }
    }

    fn resolve(&self, arg: &Arg, verb: &str, long: &str, name: String) -> Setting {
        let variable = args::environment_name(verb, long);
        if let Some(value) = std::env::var_os(&variable) {
            let value = Some(value.to_string_lossy().into_owned());
            return Setting { name, value, origin: Origin::Environment(variable) };
        }
        if let Some((values, path)) = self.find(verb, long) {
            let value = Some(values.join(","));
            return Setting { name, value, origin: Origin::File(path.to_owned()) };
        }
        let defaults: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
        let value = match arg.get_action() {
            _ if !defaults.is_empty() => Some(defaults.join(",")),
            ArgAction::SetTrue => Some("false".to_owned()),
            ArgAction::Count => Some("0".to_owned()),
            _ => None,
        };
        Setting { name, value, origin: Origin::Default }
    }
}

fn setting_name(arg: &Arg) -> Option<&str> {
    arg.get_long().filter(|long| args::is_setting(long))
}

fn accepts_many(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// `max-tokens` and `max_tokens` are the same key.
fn entry<'a>(table: &'a toml::Table, long: &str) -> Option<&'a toml::Value> {
    table.get(long).or_else(|| table.get(&long.replace('-', "_"))).filter(|v| !v.is_table())
}

fn value_texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Float(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(on) => Some(vec![on.to_string()]),
        toml::Value::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(value_texts).collect();
            texts.map(|lists| lists.concat())
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

fn read_small(path: &Path) -> anyhow::Result<Option<String>> {
    use anyhow::Context;
    use std::io::Read;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(format!("cannot open {}", path.display())),
    };
    let mut text = String::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(Misuse(format!("{} is longer than {MAX_FILE_BYTES} bytes", path.display())).into());
    }
    Ok(Some(text))
}

fn layer(path: PathBuf, text: &str, is_project: bool) -> anyhow::Result<Layer> {
    let bad = |what: String| Misuse(format!("{}: {what}", path.display()));
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| bad(e.message().to_owned()))?;
    let command = args::command();
    let mut known: BTreeSet<String> = longs(&command);
    for sub in command.get_subcommands() {
        known.extend(longs(sub));
    }
    for (key, value) in &table {
        let verb = command.find_subcommand(key).map(longs);
        match (value, verb) {
            (toml::Value::Table(inner), Some(allowed)) => {
                let allowed: BTreeSet<_> = allowed.union(&longs(&command)).cloned().collect();
                for (key, value) in inner {
                    check_key(key, value, &allowed, is_project).map_err(bad)?;
                }
            }
            (toml::Value::Table(inner), None) if key == "ask" => {
                for (key, value) in inner {
                    check_key(key, value, &known, is_project).map_err(bad)?;
                }
            }
            (toml::Value::Table(_), _) => return Err(bad(format!("`[{key}]` is no verb of kun")).into()),
            _ => check_key(key, value, &known, is_project).map_err(bad)?,
        }
    }
    Ok(Layer { path, table })
}

fn longs(command: &Command) -> BTreeSet<String> {
    let nested = command.get_subcommands().flat_map(Command::get_arguments);
    command.get_arguments().chain(nested).filter_map(setting_name).map(str::to_owned).collect()
}

fn check_key(
    key: &str,
    value: &toml::Value,
    known: &BTreeSet<String>,
    is_project: bool,
) -> Result<(), String> {
    let long = key.replace('_', "-");
    if !known.contains(&long) {
        return Err(format!("unknown setting `{key}`; `kun config show` lists them"));
    }
    if is_project && NOT_IN_PROJECT_FILE.contains(&long.as_str()) {
        return Err(format!("`{key}` may stand in the user file only"));
    }
    match value_texts(value) {
        Some(_) => Ok(()),
        None => Err(format!("`{key}` must be a text, a number, true, false or a list of these")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(project: &str, user: &str) -> Files {
        let project = layer(PathBuf::from("kun.toml"), project, true).unwrap();
        let user = layer(PathBuf::from("config.toml"), user, false).unwrap();
        Files { layers: vec![project, user] }
    }

    fn temperature(files: &Files, line: &[&str]) -> f32 {
        let matches = files.apply(args::command()).try_get_matches_from(line).unwrap();
        match matches.subcommand() {
            Some((_, sub)) => *sub.get_one("temperature").unwrap(),
            None => *matches.get_one("temperature").unwrap(),
        }
    }

    #[test]
    fn a_flag_wins_over_the_project_file_and_that_over_the_user_file() {
        let both = files("temperature = 0.5", "temperature = 0.9\ntop_k = 7");
        assert_eq!(temperature(&both, &["kun", "hi"]), 0.5);
        assert_eq!(temperature(&both, &["kun", "hi", "--temperature", "0.1"]), 0.1);
        assert_eq!(temperature(&files("", "temperature = 0.9"), &["kun", "hi"]), 0.9);
        let matches = both.apply(args::command()).try_get_matches_from(["kun", "hi"]).unwrap();
        assert_eq!(matches.get_one::<usize>("top_k"), Some(&7));
    }

    #[test]
    fn a_table_of_a_verb_holds_for_that_verb_only() {
        let files = files("[run]\ntemperature = 1", "temperature = 0.9");
        assert_eq!(temperature(&files, &["kun", "run", "m", "hi"]), 1.0);
        assert_eq!(temperature(&files, &["kun", "hi"]), 0.9);
    }

    #[test]
    fn lists_and_switches_come_from_files_too() {
        let files = files("stop = [\"a\", \"b\"]\nraw = true", "");
        let matches = files.apply(args::command()).try_get_matches_from(["kun", "hi"]).unwrap();
        assert_eq!(matches.get_many::<String>("stop").unwrap().collect::<Vec<_>>(), ["a", "b"]);
        assert!(matches.get_flag("raw"));
    }

    #[test]
    fn refuses_what_is_no_setting() {
        for (text, says) in [
            ("temprature = 1", "unknown setting `temprature`"),
            ("[rnu]\ntemperature = 1", "`[rnu]`"),
            ("temperature = 1979-05-27", "must be"),
            ("cache-dir = \"/tmp\"", "user file only"),
            ("[bench]\nrepetition = 1", "unknown setting"),
            ("a = ", ""),
        ] {
            let error = layer(PathBuf::from("kun.toml"), text, true).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("kun.toml"), "{text}: {error}");
        }
    }

    #[test]
    fn lists_each_setting_once_with_its_origin() {
        let settings = files("temperature = 0.5", "[bench]\nrepetitions = 3").settings();
        let of = |name: &str| settings.iter().filter(|s| s.name == name).collect::<Vec<_>>();
        assert_eq!(of("temperature").len(), 1);
        assert_eq!(of("temperature")[0].origin, Origin::File(PathBuf::from("kun.toml")));
        assert_eq!(of("bench.repetitions")[0].value.as_deref(), Some("3"));
        assert_eq!(of("top-p")[0].origin, Origin::Default);
        assert_eq!(of("json").len(), 1);
    }
}
