//! Completions, man pages, versions.

use crate::support::Scratch;

#[test]
fn every_shell_has_a_script_that_knows_the_verbs() {
    let scratch = Scratch::new();
    for shell in ["bash", "elvish", "fish", "nushell", "powershell", "zsh"] {
        let script = scratch.run(&["completions", shell]).expect(0).stdout;
        for word in ["kun", "pull", "temperature", "max-memory"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
}

#[test]
fn there_is_a_man_page_for_every_verb() {
    let scratch = Scratch::new();
    let page = scratch.run(&["man"]).expect(0).stdout;
    assert!(page.contains(".TH kun 1") && page.contains("SYNOPSIS"), "{page}");
    scratch.run(&["man", "pages/man1"]).expect(0);
    let help = scratch.run(&["-h"]).expect(0).stdout;
    let verbs =
        help.lines().skip_while(|l| !l.starts_with("Commands:")).skip(1).take_while(|l| !l.is_empty());
    let mut count = 0;
    for verb in verbs.filter_map(|line| line.split_whitespace().next()) {
        let file = scratch.path().join(format!("pages/man1/kun-{verb}.1"));
        let page = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(page.contains(&format!(".TH kun-{verb} 1")), "{verb}");
        count += 1;
    }
    assert!(count > 8, "{count} verbs in {help}");
}

#[test]
fn the_version_says_what_the_build_can_do() {
    let scratch = Scratch::new();
    let plain = scratch.run(&["--version"]).expect(0).stdout;
    assert_eq!(plain, format!("kun {}\n", env!("CARGO_PKG_VERSION")));
    let json = scratch.run(&["--version", "--json"]).expect(0).json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    for key in ["build", "features", "kernels"] {
        assert!(!json[key].is_null(), "{key}: {json}");
    }
}
