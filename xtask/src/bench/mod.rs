//! What tracing costs, as figures that anyone can measure again.
//!
//! Comes in: which figures. Goes out: medians and ratios of one run, on stdout. Never: a verdict; times depend on
//! the machine, so each figure stands beside what it was measured against.

mod agent;
mod drain;
mod load;
mod loss;
mod memory;
mod pair;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::command::step;
use crate::{bootstrap, workspace};

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Figures to measure; all without one.
    figures: Vec<Figure>,
    /// How often each is measured; the median is printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Figure {
    /// CPU time of a malloc and its free, traced against untraced.
    Pair,
    /// Records that one core of the agent takes in, against what one traced core makes.
    Drain,
    /// Records lost while two threads allocate as fast as they can.
    Loss,
    /// Memory of the agent for each outstanding block, against the traced program's own.
    Memory,
}

impl Figure {
    const ALL: [Self; 4] = [Self::Pair, Self::Drain, Self::Loss, Self::Memory];
}

/// What every figure is measured with.
struct Bench {
    leaktrace: PathBuf,
    load: PathBuf,
    /// Where the agent writes its reports.
    directory: tempfile::TempDir,
    rounds: u32,
}

/// Builds, measures, prints.
pub fn run(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("tracing needs root: run `cargo xtask bench` as root");
    }
    bootstrap::run(bootstrap::Scope::Build)?;
    step("building leaktrace and the load");
    let leaktrace = workspace::build_leaktrace()?;
    let directory = tempfile::tempdir()?;
    let load = directory.path().join("load");
    workspace::compile_c("xtask/bench/load.c", &load)?;
    let bench = Bench { leaktrace, load, directory, rounds: options.rounds };
    let figures: &[_] = if options.figures.is_empty() { &Figure::ALL } else { &options.figures };
    for figure in figures {
        match figure {
            Figure::Pair => pair::run(&bench)?,
            Figure::Drain => drain::run(&bench)?,
            Figure::Loss => loss::run(&bench)?,
            Figure::Memory => memory::run(&bench)?,
        }
    }
    Ok(())
}

impl Bench {
    /// A load that waits for requests.
    fn load(&self) -> Result<load::Load> {
        load::Load::start(&self.load)
    }

    /// An agent that traces it, armed.
    fn trace(&self, load: &load::Load) -> Result<agent::Agent> {
        agent::Agent::attach(&self.leaktrace, load.pid(), &self.report())
    }

    fn report(&self) -> PathBuf {
        Path::new(self.directory.path()).join("report.json")
    }
}

/// The middle value, or the mean of both middle ones.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![9.0, 1.0, 2.0, 4.0]) - 3.0).abs() < 1e-9);
    }
}
