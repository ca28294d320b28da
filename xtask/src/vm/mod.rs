//! The suite in virtual machines, each with another kernel.
//!
//! Comes in: names of kernels, a filter. Goes out: every guest's output as it comes, then one line for each kernel.
//! Never: changes the machine (packages, package lists), leaves a process or a file behind, or takes a guest's
//! silence for success.

mod cost;
mod cpio;
mod guest;
mod initramfs;
mod kernels;
mod qemu;
mod support;
mod verdict;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::step;
use crate::{bootstrap, workspace};
use guest::Built;
use kernels::{Source, Suite};
use qemu::{Accelerator, Machine};
use verdict::{Guest, Verdict};

/// Tests whose sum is a few minutes in an emulator, and that reach every program of the kernel side: what a
/// submission is checked with, on each kernel.
const QUICK: [&str; 12] = [
    "machine::",
    "exact::every_allocation_function",
    "exact::mappings_cut_moved_and_covered",
    "exact::every_operator_new",
    "exact::threads_that_free",
    "exact::libraries_that_are_gone",
    "allocators::glibc",
    "processes::a_command_and_its_children",
    "processes::processes_of_a_name",
    "side_effects::a_killed",
    "command_line::without_an_output",
    "bad_targets::a_32_bit_program",
];

/// Options of `cargo xtask vm-test`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Debian suites whose kernels to boot (bullseye, bookworm, trixie, sid), or kernel images.
    #[arg(long, value_delimiter = ',', num_args = 1.., value_name = "SUITE|FILE")]
    kernel: Vec<String>,
    /// Only tests whose names contain this.
    #[arg(long)]
    filter: Option<String>,
    /// Only a few tests that reach every program of the kernel side.
    #[arg(long, conflicts_with = "filter")]
    quick: bool,
    /// Write docs/kernel-support.md and docs/verifier-cost.json from what the guests say.
    #[arg(long, conflicts_with = "filter")]
    write_docs: bool,
    /// Keep the guest's files and what its kernel said, in target/vm.
    #[arg(long)]
    keep: bool,
    /// The longest that a guest may run, in minutes.
    #[arg(long, default_value_t = 90)]
    limit: u64,
}

/// The longest that a guest may be silent: longer than any test waits.
const SILENCE: Duration = Duration::from_mins(15);
/// The longest that an empty guest takes to come up and down, where it does.
const PROBE: Duration = Duration::from_secs(20);
/// How much longer than on a processor a test may wait in an emulator.
const EMULATED: u32 = 6;

/// Boots each kernel and runs the suite in it.
pub fn run(options: &Options) -> Result<()> {
    let names = if options.kernel.is_empty() {
        Suite::ALL.map(|suite| suite.name().to_owned()).to_vec()
    } else {
        options.kernel.clone()
    };
    let sources = names.iter().map(|name| name.parse()).collect::<Result<Vec<Source>>>()?;
    bootstrap::run(bootstrap::Scope::Vm)?;
    step("fetching kernels");
    let kernels = sources.iter().map(Source::image).collect::<Result<Vec<_>>>()?;
    let built = Built::new()?;
    let directory = workspace::root().join("target/vm");
    std::fs::create_dir_all(&directory)?;
    let scratch =
        tempfile::Builder::new().prefix("run-").tempdir_in(&directory).context("no room in target/vm")?;
    let accelerator = accelerator(&kernels[0], scratch.path())?;
    let known = cost::committed()?;
    let mut lines = Vec::new();
    let mut guests = Vec::new();
    for (source, kernel) in sources.iter().zip(&kernels) {
        step(&format!("{} ({})", source.name(), kernel.display()));
        let start = Instant::now();
        let outcome = boot(options, &built, kernel, accelerator, scratch.path());
        let seconds = start.elapsed().as_secs();
        let outcome = outcome.and_then(|guest| {
            compare_cost(&guest, known.get(&source.name()), options.write_docs)?;
            Ok(guest)
        });
        let line = match &outcome {
            Ok(guest) => line(guest),
            Err(error) => format!("FAILED: {error:#}"),
        };
        lines.push(format!("{}: {line} ({seconds} s)", source.name()));
        guests.extend(outcome.ok().map(|guest| (source.name(), guest)));
    }
    if options.keep {
        println!("kept: {}", scratch.keep().display());
    }
    println!("\n{}", lines.join("\n"));
    if guests.len() < kernels.len() {
        bail!("{} of {} kernels failed", kernels.len() - guests.len(), kernels.len());
    }
    if options.write_docs {
        write_docs(&guests, options.quick)?;
    }
    Ok(())
}

/// Shows what the verifier went through, and fails if that is much more than it was.
fn compare_cost(guest: &Guest, known: Option<&cost::Cost>, accepts: bool) -> Result<()> {
    let now = support::facts(guest).map(|doctor| cost::of(&doctor)).unwrap_or_default();
    let (lines, grown) = cost::compare(known.unwrap_or(&cost::Cost::new()), &now);
    if !lines.is_empty() {
        println!("verified on Linux {}:\n{}", guest.kernel, lines.join("\n"));
    }
    if !(grown.is_empty() || accepts) {
        bail!(
            "the verifier's work has grown by more than a fifth for {}: make it less, or accept it with \
             `cargo xtask vm-test --write-docs`",
            grown.join(", ")
        );
    }
    Ok(())
}

fn write_docs(guests: &[(String, Guest)], quick: bool) -> Result<()> {
    let command = format!("cargo xtask vm-test{} --write-docs", if quick { " --quick" } else { "" });
    std::fs::write(workspace::root().join("docs/kernel-support.md"), support::page(guests, &command))?;
    let costs =
        guests.iter().filter_map(|(name, guest)| Some((name.clone(), cost::of(&support::facts(guest)?))));
    cost::commit(costs.filter(|(_, cost)| !cost.is_empty()).collect())
}

fn line(guest: &Guest) -> String {
    match &guest.refused {
        Some(why) => format!("Linux {}: refused: {why}", guest.kernel),
        None => format!("Linux {}: {}", guest.kernel, guest.counts().line()),
    }
}

/// One guest from its first line to its verdict.
fn boot(
    options: &Options,
    built: &Built,
    kernel: &Path,
    accelerator: Accelerator,
    scratch: &Path,
) -> Result<Guest> {
    let word = word()?;
    let arguments = match &options.filter {
        Some(filter) => vec![filter.clone()],
        None if options.quick => QUICK.map(str::to_owned).to_vec(),
        None => Vec::new(),
    };
    let factor = if accelerator == Accelerator::Tcg { EMULATED } else { 1 };
    let initramfs = scratch.join("initramfs");
    built.contents(&word, &arguments, factor)?.write(&initramfs)?;
    let name = kernel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let machine = Machine {
        kernel,
        initramfs: &initramfs,
        console: scratch.join(format!("console-{name}")),
        memory: 2560,
        accelerator,
        silence: SILENCE,
        limit: Duration::from_mins(options.limit),
    };
    let mut guest = Guest::new(&word);
    let ran = machine.run(|line| {
        if guest.hears(line) {
            println!("{line}");
        }
    });
    let complaint = complaint(&machine.console);
    let verdict = ran.and_then(|()| guest.verdict()).with_context(|| last_words(&machine.console))?;
    match (verdict, complaint) {
        (Verdict::Passed, Some(complaint)) => bail!("its kernel complained: {complaint}"),
        _ => Ok(guest),
    }
}

/// Who can run guests here: KVM only if a guest comes up in it, whatever is in /dev.
fn accelerator(kernel: &Path, scratch: &Path) -> Result<Accelerator> {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accelerator::Tcg);
    }
    step("trying KVM");
    let word = word()?;
    let initramfs = scratch.join("probe");
    guest::probe(&word)?.write(&initramfs)?;
    let machine = Machine {
        kernel,
        initramfs: &initramfs,
        console: scratch.join("console-probe"),
        memory: 512,
        accelerator: Accelerator::Kvm,
        silence: PROBE,
        limit: PROBE,
    };
    let mut up = false;
    let ran = machine.run(|line| up |= line.strip_prefix(&word).is_some_and(|told| told == " done probe"));
    if up && ran.is_ok() {
        return Ok(Accelerator::Kvm);
    }
    eprintln!("  no guest comes up with KVM here: emulating (slower)");
    Ok(Accelerator::Tcg)
}

/// The first line of a kernel that found something wrong with itself.
fn complaint(console: &Path) -> Option<String> {
    let said = String::from_utf8_lossy(&std::fs::read(console).ok()?).into_owned();
    let wrong =
        |line: &&str| ["WARNING:", "BUG:", "Oops", "Kernel panic"].iter().any(|word| line.contains(word));
    said.lines().find(wrong).map(|line| line.trim().to_owned())
}

/// The end of what its kernel said, for an error.
fn last_words(console: &Path) -> String {
    let said = String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned();
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match &lines[lines.len().saturating_sub(15)..] {
        [] => "its kernel said nothing".to_owned(),
        last => format!("its kernel said last:\n    {}\n", last.join("\n    ")),
    }
}

/// A word that nobody in the guest can guess.
fn word() -> Result<String> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("vm-{:016x}", u64::from_ne_bytes(bytes)))
}
