//! Flags, environment, files; help; colours.

use crate::support::{Scratch, stories};

fn setting(scratch: &Scratch, variables: &[(&str, &str)], name: &str) -> (String, String) {
    let mut command = scratch.kun(&["config", "show", "--json"]);
    command.envs(variables.iter().copied());
    let ran = crate::support::Ran::from(command.output().unwrap()).expect(0);
    let value = ran.json()[name].clone();
    let text = |key: &str| value[key].as_str().unwrap_or("unset").to_owned();
    (text("value"), text("origin"))
}

#[test]
fn settings_say_where_they_come_from() {
    let scratch = Scratch::new();
    assert_eq!(setting(&scratch, &[], "temperature"), ("0.2".into(), "default".into()));
    scratch.write(".config/kun/config.toml", "temperature = 0.5\ntop_k = 9\n");
    let (value, origin) = setting(&scratch, &[], "temperature");
    assert!(value == "0.5" && origin.ends_with("config.toml"), "{value} {origin}");
    scratch.write("kun.toml", "temperature = 0.6\n");
    let (value, origin) = setting(&scratch, &[], "temperature");
    assert!(value == "0.6" && origin.ends_with("kun.toml"), "{value} {origin}");
    assert_eq!(setting(&scratch, &[], "top-k").0, "9", "the user file still gives the rest");
    let variables = [("KUN_TEMPERATURE", "0.7")];
    assert_eq!(setting(&scratch, &variables, "temperature"), ("0.7".into(), "KUN_TEMPERATURE".into()));
    let plain = scratch.run(&["config", "show", "--origin"]).expect(0);
    assert!(
        plain.stdout.lines().any(|l| l.starts_with("temperature ") && l.ends_with("kun.toml")),
        "{plain:?}"
    );
}

#[test]
fn settings_reach_the_run_in_their_order() {
    let scratch = Scratch::new();
    let tokens = |variables: &[(&str, &str)], flags: &[&str]| {
        let model = stories();
        let mut args = vec!["run", model.as_str(), "Once", "--raw"];
        args.extend(flags);
        let mut command = scratch.kun(&args);
        command.envs(variables.iter().copied());
        let ran = crate::support::Ran::from(command.output().unwrap()).expect(0);
        ran.json()["usage"]["completion_tokens"].as_u64().unwrap()
    };
    scratch.write("kun.toml", "json = true\nignore-end = true\n[run]\nmax_tokens = 3\n");
    assert_eq!(tokens(&[], &[]), 3);
    assert_eq!(tokens(&[("KUN_MAX_TOKENS", "4")], &[]), 4);
    assert_eq!(tokens(&[("KUN_MAX_TOKENS", "4")], &["-n", "5"]), 5);
}

#[test]
fn a_bad_settings_file_is_misuse_and_named() {
    let scratch = Scratch::new();
    for text in ["temprature = 1\n", "temperature = \n", "[rum]\n", "cache-dir = \"/x\"\n"] {
        scratch.write("kun.toml", text);
        let ran = scratch.run(&["ls"]).expect(2);
        assert!(ran.stderr.contains("kun.toml"), "{text}: {}", ran.stderr);
    }
    scratch.write("kun.toml", "temperature = \"warm\"\n");
    let ran = scratch.run(&["hello", "--offline"]).expect(2);
    assert!(ran.stderr.contains("warm") && ran.stderr.contains("kun.toml"), "{}", ran.stderr);
}

#[test]
fn help_has_examples_first_and_knows_every_topic() {
    let scratch = Scratch::new();
    let short = scratch.run(&["-h"]).expect(0).stdout;
    assert!(short.find("Examples:") < short.find("Usage:"), "{short}");
    let long = scratch.run(&["--help"]).expect(0).stdout;
    assert!(long.len() > short.len() && long.contains("--typical-p"));
    for topic in ["models", "settings", "environment", "exit-codes", "chat", "json", "run", "ls"] {
        assert!(scratch.run(&["help", topic]).expect(0).stdout.len() > 100, "{topic}");
    }
    let codes = scratch.run(&["help", "exit-codes"]).expect(0).stdout;
    for code in [0, 1, 2, 3, 4, 5, 130] {
        assert!(codes.lines().any(|l| l.trim_start().starts_with(&format!("{code}  "))), "{code}: {codes}");
    }
    assert!(scratch.run(&["help", "nonsense"]).expect(2).stderr.contains("exit-codes"));
}

#[test]
fn slips_are_answered_with_what_was_meant() {
    let scratch = Scratch::new();
    for (args, says) in [
        (&["rnu", "smollm2"][..], "did you mean `kun run`"),
        (&["verfy"], "did you mean `kun verify`"),
        (&["why", "is", "it"], "in quotes"),
        (&["--temperature", "1", "run", "m"], "after the verb"),
        (&["--temperature", "1", "ls"], "takes no --temperature"),
        (&["run", "m", "hi", "--temprature", "1"], "--temperature"),
        (&["completions", "bish"], "bash"),
    ] {
        let ran = scratch.run(args).expect(2);
        assert!(ran.stderr.contains(says), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn colours_are_for_terminals_and_for_those_who_insist() {
    let scratch = Scratch::new();
    let colored = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = scratch.kun(args);
        command.envs(variables.iter().copied());
        let ran = crate::support::Ran::from(command.output().unwrap());
        assert!(!ran.stdout.contains('\x1b'));
        ran.stderr.contains('\x1b')
    };
    let args = &["show", "./missing.gguf"];
    assert!(!colored(&[], args), "stderr is no terminal here");
    assert!(colored(&[("CLICOLOR_FORCE", "1")], args));
    assert!(!colored(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], args));
    assert!(colored(&[("NO_COLOR", "1")], &["show", "./missing.gguf", "--color", "always"]));
    assert!(!colored(&[("CLICOLOR_FORCE", "1")], &["show", "./missing.gguf", "--color=never"]));
    assert!(colored(&[("KUN_COLOR", "always")], &["--no-such-flag"]), "clap's own messages follow");
}
