//! Asks the kernel what its BPF can, by trying.
//!
//! Comes in: nothing. Goes out: an [`Attempt`] per question. Never: leaves a map or a program behind, attaches
//! anything, or needs aya (which belongs to the probes).
//!
//! The questions and the answers that tell "no" from "not allowed" are those of
//! [libbpf's feature probes](https://github.com/libbpf/libbpf/blob/master/src/features.c).

use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::facts::Attempt;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;

const BPF_MAP_TYPE_RINGBUF: u32 = 27;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_PERF_EVENT: u32 = 41;
const BPF_FUNC_LOOP: i32 = 181;

/// An instruction as the kernel reads it: opcode, registers, offset, immediate.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: 0, offset: 0, immediate }
}

/// `r0 = 0`
const RETURN_ZERO: Instruction = instruction(0xb7, 0);
const EXIT: Instruction = instruction(0x95, 0);

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: i32,
    attach_type: u32,
    flags: u32,
}

/// Creates the smallest ring buffer there is.
pub(super) fn ring_buffer() -> Attempt {
    let attributes =
        MapCreate { map_type: BPF_MAP_TYPE_RINGBUF, key_size: 0, value_size: 0, max_entries: 4096 };
    // SAFETY: the attributes are those of the command and hold no pointer.
    unsafe { bpf(BPF_MAP_CREATE, &attributes) }.map(drop)
}

/// Loads a call of `bpf_loop` without arguments. The verifier refuses it either way; what it says tells whether
/// it knows the function.
pub(super) fn bpf_loop() -> Attempt {
    let mut log = [0; 4096];
    match load(&[instruction(0x85, BPF_FUNC_LOOP), EXIT], &mut log) {
        Ok(_) => Ok(()),
        Err(errno @ (Errno::PERM | Errno::NOSYS)) => Err(errno),
        Err(_) if says(&log, "unknown func") || says(&log, "invalid func") => Err(Errno::OPNOTSUPP),
        // Known by its name; what is wrong with the arguments differs from kernel to kernel.
        Err(_) if says(&log, "call bpf_loop#") => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Links a program to a perf event that does not exist: a kernel with such links looks for the event.
pub(super) fn perf_link() -> Attempt {
    let program = load(&[RETURN_ZERO, EXIT], &mut [0; 4096])?;
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: -1,
        attach_type: BPF_PERF_EVENT,
        flags: 0,
    };
    // SAFETY: the attributes are those of the command and hold no pointer.
    match unsafe { bpf(BPF_LINK_CREATE, &attributes) } {
        Err(Errno::BADF) => Ok(()),
        Err(Errno::INVAL) => Err(Errno::OPNOTSUPP),
        other => other.map(drop),
    }
}

fn load(program: &[Instruction], log: &mut [u8]) -> Result<OwnedFd, Errno> {
    let attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_KPROBE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log_buf: log.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: the attributes are those of the command; program, licence and log outlive the call, with the
    // lengths that are given.
    unsafe { bpf(BPF_PROG_LOAD, &attributes) }
}

fn says(log: &[u8], text: &str) -> bool {
    log.windows(text.len()).any(|window| window == text.as_bytes())
}

/// `bpf(2)` for the commands that return a descriptor.
///
/// # Safety
/// `A` must be the attributes of `command`, and every address in it valid for the length that goes with it.
unsafe fn bpf<A>(command: libc::c_long, attributes: &A) -> Result<OwnedFd, Errno> {
    // SAFETY: the caller's promise; the kernel reads no more of the attributes than their size.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<A>()) };
    if fd < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
