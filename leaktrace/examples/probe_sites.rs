//! Prints where leaktrace would probe each FILE: `cargo run -p leaktrace --example probe_sites -- FILE…`.
#![expect(clippy::print_stdout, reason = "it is what the example is for")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use leaktrace::allocator::{Exit, ProbePoint, discover};

fn main() -> anyhow::Result<()> {
    let debug_roots = [PathBuf::from("/usr/lib/debug")];
    for path in std::env::args().skip(1) {
        let file = File::open(&path)?;
        let start = Instant::now();
        let discovery = discover(file, Path::new(&path), &debug_roots);
        let took = start.elapsed();
        println!("{path} ({took:?})");
        match discovery {
            Ok(discovery) => {
                println!("  {}", discovery.allocators.join(", "));
                discovery.points.iter().for_each(print);
                for problem in &discovery.problems {
                    println!("  ! {}: {}", problem.function, problem.why);
                }
            }
            Err(error) => println!("  ! {error}"),
        }
    }
    Ok(())
}

fn print(point: &ProbePoint) {
    let exit = match &point.exit {
        Exit::None => "-".to_owned(),
        Exit::ReturnProbe => "return probe".to_owned(),
        Exit::ReturnSites(sites) => format!("{} ret", sites.len()),
    };
    let ProbePoint { function, role, entry, .. } = point;
    let cost = if entry.emulated { "emulated" } else { "stepped" };
    let depth = if entry.depth == 0 { String::new() } else { format!(" (stack {:#x} deeper)", entry.depth) };
    let role = format!("{role:?}");
    println!(
        "  {function:<36} {role:<14} {:#9x} {cost:<9} {exit:<13} {}{depth}",
        entry.offset, entry.instruction
    );
}
