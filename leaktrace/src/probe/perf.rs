//! Perf events on tracepoints: the switch that puts breakpoints into one process.
//!
//! Comes in: tracepoint ids, pids, a BPF program. Goes out: descriptors; closing one takes the process's
//! breakpoints away. Never: counts or samples anything, and never inherits: an inherited event would cost
//! every new thread.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
/// `_IOW('$', 8, __u32)`
const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
/// Bit 0 of the attribute's flags. A disabled event costs the scheduler little to switch, and its process has
/// its breakpoints all the same.
const DISABLED: u64 = 1;
/// Bit 12 of the attribute's flags.
const ENABLE_ON_EXEC: u64 = 1 << 12;

/// When the breakpoints of an event come into its task's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// At once, into all that is mapped. Takes an RCU grace period: never while a CPU waits for the answer.
    Now,
    /// They are there already (a fork copies them), or come when the file is mapped. Takes microseconds: the
    /// kernel relies on `enable_on_exec` here, see `trace_uprobe_filter_add`.
    AsMapped,
}

/// `struct perf_event_attr`, as far as its first published version (64 bytes).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    bp_addr: u64,
}

/// Opens a tracepoint's event on the task `tid`, disabled.
///
/// The breakpoints are in the memory of that task and of all that share it.
pub fn open(tracepoint: u64, tid: u32, placement: Placement) -> io::Result<OwnedFd> {
    let attributes = Attributes {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: tracepoint,
        flags: match placement {
            Placement::Now => DISABLED,
            Placement::AsMapped => DISABLED | ENABLE_ON_EXEC,
        },
        ..Attributes::default()
    };
    let (any_cpu, no_group): (libc::c_int, libc::c_int) = (-1, -1);
    // SAFETY: `attributes` is a valid perf_event_attr of the size it says; the call only reads it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            tid as libc::pid_t,
            any_cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Lets `program` run at each hit of the event's tracepoint, in whatever process, until the event is closed.
pub fn set_program(event: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are open; the request takes the program's as its argument.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
