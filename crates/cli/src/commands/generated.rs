//! Completions and man pages, made from the definitions that parse the command line.

use super::App;
use crate::args::{self, CompletionsArgs, ManArgs, Shell};
use anyhow::Context;
use clap::Command;
use clap_complete::{generate, shells};
use std::path::Path;

/// Prints the script of one shell.
pub fn completions(app: &App, args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut command = args::command();
    let mut script = Vec::new();
    match args.shell {
        Shell::Bash => generate(shells::Bash, &mut command, "kun", &mut script),
        Shell::Elvish => generate(shells::Elvish, &mut command, "kun", &mut script),
        Shell::Fish => generate(shells::Fish, &mut command, "kun", &mut script),
        Shell::Nushell => generate(clap_complete_nushell::Nushell, &mut command, "kun", &mut script),
        Shell::Powershell => generate(shells::PowerShell, &mut command, "kun", &mut script),
        Shell::Zsh => generate(shells::Zsh, &mut command, "kun", &mut script),
    }
    Ok(app.output.write(&String::from_utf8(script)?)?)
}

/// Prints `kun(1)`, or writes every page into a folder.
pub fn man(app: &App, args: &ManArgs) -> anyhow::Result<()> {
    let mut command = args::command().version(env!("CARGO_PKG_VERSION"));
    command.build();
    let Some(dir) = &args.dir else {
        return Ok(app.output.write(&page(&command)?)?);
    };
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    write_pages(&command, "kun", dir)
}

fn write_pages(command: &Command, name: &str, dir: &Path) -> anyhow::Result<()> {
    let file = dir.join(format!("{name}.1"));
    let named = command.clone().name(name.to_owned()).display_name(name.to_owned());
    std::fs::write(&file, page(&named)?).with_context(|| format!("cannot write {}", file.display()))?;
    for sub in command.get_subcommands() {
        write_pages(sub, &format!("{name}-{}", sub.get_name()), dir)?;
    }
    Ok(())
}

fn page(command: &Command) -> anyhow::Result<String> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    Ok(String::from_utf8(text)?)
}
