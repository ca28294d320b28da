//! Checks what building and testing need, and installs what is missing.
//!
//! Comes in: how much is needed. Goes out: nothing, or an error that lists what a person has to install. Never:
//! removes a package, starts a service, or installs anything that is there already.

mod apt;
mod needs;
mod toolchain;

use anyhow::{Result, bail};

use crate::command::step;

/// Options of `cargo xtask bootstrap`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Also what the tests (in virtual machines too), the demo and the benchmarks need.
    #[arg(long)]
    all: bool,
}

impl Options {
    /// What the options ask for.
    pub fn scope(&self) -> Scope {
        if self.all { Scope::Vm } else { Scope::Build }
    }
}

/// How much is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// To build leaktrace.
    Build,
    /// To trace a real Redis as well.
    Demo,
    /// To run every test and the lint.
    Test,
    /// To run the suite in virtual machines as well.
    Vm,
}

/// A thing that is needed.
struct Need {
    /// What it is and what for.
    what: &'static str,
    /// Is it there? What was found, or why that won't do.
    check: Box<dyn Fn() -> Result<String>>,
    /// How it gets there.
    remedy: Remedy,
}

/// How a missing thing is got.
enum Remedy {
    /// Debian packages.
    Packages(&'static [&'static str]),
    /// One program out of a Debian package that would start a service if it were installed.
    Unpacked { package: &'static str, program: &'static str },
    /// Something of our own; the text says how to do it by hand.
    Own { install: fn() -> Result<()>, by_hand: &'static str },
}

/// Checks, installs, checks again.
pub fn run(scope: Scope) -> Result<()> {
    step("checking what is needed");
    let needs = needs::of(scope);
    let missing: Vec<_> = needs.into_iter().filter(|need| !is_met(need)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let installed = install(&missing);
    step("checking again what was missing");
    let unmet: Vec<_> = missing.iter().filter(|need| !is_met(need)).collect();
    if unmet.is_empty() {
        return Ok(());
    }
    if let Err(reason) = installed {
        eprintln!("{reason:#}");
    }
    bail!("please install by hand:\n{}", by_hand(unmet))
}

fn is_met(need: &Need) -> bool {
    match (need.check)() {
        Ok(found) => eprintln!("  ok       {}: {found}", need.what),
        Err(reason) => {
            eprintln!("  missing  {}: {reason:#}", need.what);
            return false;
        }
    }
    true
}

fn install(missing: &[Need]) -> Result<()> {
    let packages: Vec<_> = missing
        .iter()
        .flat_map(|need| match need.remedy {
            Remedy::Packages(packages) => packages,
            Remedy::Unpacked { .. } | Remedy::Own { .. } => &[],
        })
        .copied()
        .collect();
    apt::install(&packages)?;
    for need in missing {
        match need.remedy {
            Remedy::Packages(_) => {}
            Remedy::Unpacked { package, program } => apt::unpack(package, program)?,
            Remedy::Own { install, .. } => install()?,
        }
    }
    Ok(())
}

/// What a person has to do, one line a thing.
fn by_hand<'a>(needs: impl IntoIterator<Item = &'a Need>) -> String {
    let mut lines: Vec<_> = needs.into_iter().map(Need::by_hand).collect();
    lines.push("docs/building.md tells more, for other distributions too.".to_owned());
    lines.join("\n")
}

impl Need {
    fn by_hand(&self) -> String {
        match self.remedy {
            Remedy::Packages(packages) => format!("  - {}: Debian: {}", self.what, packages.join(" ")),
            Remedy::Unpacked { package, program } => {
                format!("  - {}: `{program}` on PATH (Debian: package {package})", self.what)
            }
            Remedy::Own { by_hand, .. } => format!("  - {}: {by_hand}", self.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_scope_needs_all_that_a_narrower_one_does() {
        let names = |scope| needs::of(scope).iter().map(|need| need.what).collect::<Vec<_>>();
        let scopes = [Scope::Build, Scope::Demo, Scope::Test, Scope::Vm].map(names);
        for pair in scopes.windows(2) {
            assert!(pair[0].len() < pair[1].len() && pair[1].starts_with(&pair[0]), "{pair:?}");
        }
    }

    #[test]
    fn the_list_for_a_person_names_thing_and_package() {
        let need = Need {
            what: "SQLite",
            check: Box::new(|| bail!("no")),
            remedy: Remedy::Packages(&["sqlite3", "libsqlite3-0"]),
        };
        let text = by_hand([&need]);
        assert!(text.contains("SQLite") && text.contains("sqlite3 libsqlite3-0"), "{text}");
    }
}
