//! CPU time of a malloc and its free in the traced thread.
//!
//! Comes in: two processes of the same program, one of them traced, asked in turn. Goes out: both medians and
//! their ratio, for a shallow and a deep stack. Never: counts the agent's own time.

use anyhow::Result;

use super::{Bench, median};
use crate::command::step;

/// Frames of the program between `main` and the allocation.
const DEPTHS: [u32; 2] = [1, 25];
/// Pairs a round; the traced ones are some hundred times slower.
const UNTRACED: u32 = 2_000_000;
const TRACED: u32 = 100_000;

pub fn run(bench: &Bench) -> Result<()> {
    step("bench pair");
    let (mut plain, mut probed) = (bench.load()?, bench.load()?);
    let agent = bench.trace(&probed)?;
    for depth in DEPTHS {
        let (mut untraced, mut traced) = (Vec::new(), Vec::new());
        // Not counted: the first stack of its kind is unwound, sent and stored whole.
        probed.pair(1000, depth)?;
        for _ in 0..bench.rounds {
            untraced.push(plain.pair(UNTRACED, depth)?);
            traced.push(probed.pair(TRACED, depth)?);
        }
        let (untraced, traced) = (median(untraced), median(traced));
        println!(
            "pair    depth {depth:2}: untraced {untraced:.1} ns, traced {traced:.0} ns CPU, ratio {:.0}",
            traced / untraced
        );
    }
    let report = agent.finish()?;
    println!("pair    {} records, {} lost", report.events, report.lost);
    Ok(())
}
