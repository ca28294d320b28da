//! leaktrace's kernel side.
//!
//! Comes in: uprobes on allocation functions of traced processes, tracepoints on fork, exec and exit. Goes
//! out: records on the event ring, requests on the control ring ([`leaktrace_common::record`]). Never: blocks
//! without a bound, keeps state between two steps anywhere but in a per-thread map slot (uprobe programs are
//! preemptible), or drops something without counting it.
//!
//! A program is gate, read, emit, return.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "the BPF target has no AtomicU64; the intrinsic is `lock add`")
)]

#[cfg(target_arch = "bpf")]
mod alloc;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod free;
#[cfg(target_arch = "bpf")]
mod gate;
#[cfg(target_arch = "bpf")]
mod hold;
#[cfg(target_arch = "bpf")]
mod inflight;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod lifecycle;
#[cfg(target_arch = "bpf")]
mod loader;
#[cfg(target_arch = "bpf")]
mod mapping;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod returns;
#[cfg(target_arch = "bpf")]
mod stack;

/// The kernel's stack and memory readers are for GPL-compatible programs.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could get here.
    loop {}
}

/// On the host there is nothing to run: the crate is built for BPF by the agent's build script.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
