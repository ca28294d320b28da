//! What a package ships beside the program: man pages and shell completions, as leaktrace itself prints them.
//!
//! Comes in: the release program. Goes out: files under `target/dist`. Never: a second description of the command
//! line.

use std::fs::{self, File};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{self, step};
use crate::workspace;

/// Shells, and the file names under which they look for completions.
const SHELLS: [(&str, &str); 3] =
    [("bash", "leaktrace.bash"), ("zsh", "_leaktrace"), ("fish", "leaktrace.fish")];

/// Builds and writes.
pub fn run() -> Result<()> {
    step("building leaktrace");
    let leaktrace = workspace::build_leaktrace()?;
    let dist = leaktrace.ancestors().nth(2).context("the program is in target/release")?.join("dist");
    let (man, completions) = (dist.join("man1"), dist.join("completions"));
    step("writing man pages and completions");
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    command::run(Command::new(&leaktrace).args(["man", "--dir"]).arg(&man))?;
    for (shell, name) in SHELLS {
        let file = File::create(completions.join(name))?;
        command::run(Command::new(&leaktrace).args(["completions", shell]).stdout(file))?;
    }
    println!("{}", dist.display());
    Ok(())
}
