//! How fast the agent takes records in, for the CPU time it uses.
//!
//! Comes in: one traced thread that allocates flat out. Goes out: records for each second of the agent's CPU time,
//! against what the traced thread made in a second. Never: counts the time for attaching and for the last report.

use anyhow::Result;

use super::{Bench, agent, median};
use crate::command::step;

const MILLISECONDS: u32 = 2000;

pub fn run(bench: &Bench) -> Result<()> {
    step("bench drain");
    let (mut drained, mut made) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let mut load = bench.load()?;
        let agent = bench.trace(&load)?;
        let before = agent.cpu_time()?;
        load.flood(1, MILLISECONDS)?;
        agent::wait_until_drained();
        let spent = agent.cpu_time()?.saturating_sub(before);
        let events = agent.finish()?.events as f64;
        drained.push(events / spent.as_secs_f64());
        made.push(events / (f64::from(MILLISECONDS) / 1000.0));
    }
    let (drained, made) = (median(drained), median(made));
    println!(
        "drain   {:.2} M records per second of agent CPU; one traced thread made {:.2} M/s, ratio {:.1}",
        drained / 1e6,
        made / 1e6,
        drained / made
    );
    Ok(())
}
