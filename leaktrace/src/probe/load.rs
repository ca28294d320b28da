//! Loads the kernel side.
//!
//! Comes in: its object, embedded by the build script; the kernel's BTF; the ring's size and the `--comm`
//! patterns. Goes out: programs, maps and rings. Never: attaches to a process.

use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;

use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use aya::programs::{Program, RawTracePoint, UProbe};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use leaktrace_common::comm::CommPattern;
use leaktrace_common::limits::MAX_COMM_PATTERNS;
use leaktrace_common::process::KernelOffsets;

use super::btf::{self, BtfError};
use super::gate::Gate;

/// The kernel side's object.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/leaktrace.bpf.o"));

/// Tracepoints and the programs on them.
const TRACEPOINTS: [(&str, &str); 3] =
    [("fork", "sched_process_fork"), ("exec", "sched_process_exec"), ("exit", "sched_process_exit")];

/// Why the kernel side could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No BTF.
    #[error(
        "this kernel does not describe its types ({path}: {source}): leaktrace needs a kernel built with \
         CONFIG_DEBUG_INFO_BTF, as all distributions since 2021 have it",
        path = btf::VMLINUX
    )]
    NoBtf {
        /// What reading it said.
        source: io::Error,
    },
    /// BTF without what we need.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The object was refused.
    #[error(
        "the kernel refuses leaktrace's programs: {0}. Root (CAP_BPF, CAP_PERFMON) is needed; `leaktrace doctor` tells what is missing"
    )]
    Object(#[from] aya::EbpfError),
    /// A program was refused.
    #[error("the kernel refuses the program `{program}`: {source}. leaktrace needs Linux 6.1 or newer")]
    Program {
        /// Its name.
        program: String,
        /// The verifier's words.
        source: aya::programs::ProgramError,
    },
    /// A map is not what the object says.
    #[error("the map `{map}` cannot be used: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
}

/// What the kernel side is told before it is loaded.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Size of the event ring: a power of two, at least one page.
    pub ring_bytes: u32,
    /// Processes to trace from their exec on.
    pub comm_patterns: Vec<CommPattern>,
    /// 0 none, 1 error … 5 trace: how much the kernel side logs.
    pub log_level: u8,
}

/// The loaded kernel side. Dropping it detaches all of it.
pub struct KernelSide {
    ebpf: Ebpf,
}

/// A program that the kernel has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier went through, loops turn by turn; `None` before kernel 5.16.
    pub verified_instructions: Option<u32>,
}

/// Loads the kernel side and takes it out again: what the kernel says to it.
pub fn trial() -> Result<Vec<Accepted>, LoadError> {
    let smallest = rustix::param::page_size() as u32;
    let options = LoadOptions { ring_bytes: smallest, comm_patterns: Vec::new(), log_level: 0 };
    Ok(KernelSide::load(&options)?.accepted())
}

impl KernelSide {
    /// Loads all programs; attaches none.
    pub fn load(options: &LoadOptions) -> Result<Self, LoadError> {
        let offsets = kernel_offsets()?;
        // One CPU is for answering.
        let may_hold = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u32 - 1;
        let mut loader = EbpfLoader::new();
        loader
            .verifier_log_level(VerifierLogLevel::DISABLE)
            .override_global("RING_BYTES", &options.ring_bytes, true)
            .override_global("KERNEL_OFFSETS", &offsets, true)
            .override_global("MAY_HOLD", &may_hold, true)
            .override_global("AYA_LOG_LEVEL", &options.log_level, false)
            .map_max_entries("EVENTS", options.ring_bytes);
        let mut ebpf = loader.load(OBJECT)?;
        let names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let Some(program) = ebpf.program_mut(&name) else { continue };
            load_program(program).map_err(|source| LoadError::Program { program: name, source })?;
        }
        let mut this = Self { ebpf };
        this.set_patterns(&options.comm_patterns)?;
        Ok(this)
    }

    fn set_patterns(&mut self, patterns: &[CommPattern]) -> Result<(), LoadError> {
        let mut map: Array<_, CommPattern> = self.map_mut("COMM_PATTERNS")?;
        for (slot, pattern) in patterns.iter().take(MAX_COMM_PATTERNS).enumerate() {
            map.set(slot as u32, pattern, 0)
                .map_err(|source| LoadError::Map { map: "COMM_PATTERNS", source })?;
        }
        Ok(())
    }

    /// Begins to follow fork, exec and exit.
    pub fn attach_tracepoints(&mut self) -> Result<(), LoadError> {
        for (name, tracepoint) in TRACEPOINTS {
            let attached = self
                .ebpf
                .program_mut(name)
                .ok_or_else(|| aya::programs::ProgramError::NotLoaded)
                .and_then(<&mut RawTracePoint>::try_from)
                .and_then(|program| program.attach(tracepoint));
            attached.map_err(|source| LoadError::Program { program: name.to_owned(), source })?;
        }
        Ok(())
    }

    /// The uprobe program with this name, for [`super::perf::set_program`].
    pub fn uprobe(&self, name: &str) -> Option<BorrowedFd<'_>> {
        match self.ebpf.program(name)? {
            Program::UProbe(program) => program.fd().ok().map(|fd| fd.as_fd()),
            _ => None,
        }
    }

    /// All that the kernel has accepted, by name.
    fn accepted(&self) -> Vec<Accepted> {
        let accepted = self.ebpf.programs().filter_map(|(name, program)| {
            let verified_instructions = program.info().ok()?.verified_instruction_count();
            Some(Accepted { name: name.to_owned(), verified_instructions })
        });
        let mut accepted: Vec<_> = accepted.collect();
        accepted.sort_by(|a, b| a.name.cmp(&b.name));
        accepted
    }

    /// Takes the event ring.
    pub fn events(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        self.take("EVENTS")
    }

    /// Takes the control ring.
    pub fn control(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        self.take("CONTROL")
    }

    /// Takes the counters.
    pub fn counters(&mut self) -> Result<PerCpuArray<MapData, u64>, LoadError> {
        self.take("COUNTS")
    }

    /// Takes the maps of the gate.
    pub fn gate(&mut self) -> Result<Gate, LoadError> {
        Ok(Gate::new(self.take("TRACED")?, self.take("HOLDS")?))
    }

    /// The kernel side's log.
    pub fn log(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, aya_log::Error> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
    }

    fn take<M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
        &mut self,
        map: &'static str,
    ) -> Result<M, LoadError> {
        self.ebpf
            .take_map(map)
            .ok_or_else(|| aya::maps::MapError::InvalidName { name: map.to_owned() })
            .and_then(M::try_from)
            .map_err(|source| LoadError::Map { map, source })
    }

    fn map_mut<'a, M>(&'a mut self, map: &'static str) -> Result<M, LoadError>
    where
        M: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
    {
        self.ebpf
            .map_mut(map)
            .ok_or_else(|| aya::maps::MapError::InvalidName { name: map.to_owned() })
            .and_then(M::try_from)
            .map_err(|source| LoadError::Map { map, source })
    }
}

fn load_program(program: &mut Program) -> Result<(), aya::programs::ProgramError> {
    match program {
        Program::UProbe(program) => UProbe::load(program),
        Program::RawTracePoint(program) => RawTracePoint::load(program),
        _ => Err(aya::programs::ProgramError::UnexpectedProgramType),
    }
}

fn kernel_offsets() -> Result<KernelOffsets, LoadError> {
    let btf = std::fs::read(btf::VMLINUX).map_err(|source| LoadError::NoBtf { source })?;
    Ok(btf::kernel_offsets(&btf)?)
}
