//! How fast the agent takes records in, for the CPU time it uses.
//!
//! Comes in: one traced thread that allocates and frees one block after another, so the ledger is nearly empty (the
//! agent's best case). Goes out: records for each second of the agent's CPU time,
//! against those for each second of the thread's. Never: counts the time for attaching and for the last report, or
//! for which either waited for a CPU.

use anyhow::Result;

use super::{Bench, agent, median};
use crate::command::step;

const PAIRS: u32 = 1_000_000;

pub fn run(bench: &Bench) -> Result<()> {
    step("bench drain");
    let (mut drained, mut made) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let mut load = bench.load()?;
        let agent = bench.trace(&load)?;
        let before = agent.cpu_time()?;
        let pair = load.pair(PAIRS, 1)?;
        agent::wait_until_drained();
        let spent = agent.cpu_time()?.saturating_sub(before);
        let events = agent.finish()?.events as f64;
        drained.push(events / spent.as_secs_f64());
        made.push(events / (pair * f64::from(PAIRS) / 1e9));
    }
    let (drained, made) = (median(drained), median(made));
    println!(
        "drain   {:.1} M records per second of agent CPU, made by {:.2} M per second of the traced thread's, ratio {:.0}",
        drained / 1e6,
        made / 1e6,
        drained / made
    );
    Ok(())
}
