//! Every reason for which the kernel side loses, truncates or cannot match something.
//!
//! Comes in: nothing. Goes out: one index per reason, with the name that metrics and reports use. Never: a
//! reason without a name.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// A slot of the kernel side's counter array.
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Counter { $($(#[$doc])* $name,)+ }

        impl Counter {
            /// All of them, in the order of their slots.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Name as metrics label and in the report's JSON, `snake_case`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

counters! {
    /// An allocation or mapping did not fit into the ring.
    RingFullAlloc = "ring_full_alloc",
    /// A free or unmap did not fit into the ring.
    RingFullFree = "ring_full_free",
    /// The frames of a stack did not fit into the ring; they are sent at its next use.
    RingFullStack = "ring_full_stack",
    /// A fork, exec or exit did not fit into the ring.
    RingFullLifecycle = "ring_full_lifecycle",
    /// A request did not fit into the control ring.
    ControlRingFull = "control_ring_full",
    /// The table of threads inside an allocation function was full: their allocations are unseen.
    InflightFull = "inflight_full",
    /// A stack deeper than [`crate::limits::MAX_FRAMES`].
    StackTooDeep = "stack_too_deep",
    /// A stack whose frame-pointer chain broke.
    StackBroken = "stack_broken",
    /// A stack whose memory could not be read without a page fault.
    StackUnreadable = "stack_unreadable",
    /// Stacks walked.
    Stacks = "stacks",
    /// A result (`posix_memalign`'s pointer) could not be read.
    ResultUnreadable = "result_unreadable",
    /// The table of traced processes was full: a child or a new process is not traced.
    ProcessesFull = "processes_full",
    /// A process did not wait for its probes: its CPU was needed for the answer, or that took too long. Whether
    /// they came too late is the agent's to find out.
    Unheld = "unheld",
    /// A process waited for its probes.
    Holds = "holds",
    /// Nanoseconds that processes waited for their probes.
    HoldNanoseconds = "hold_nanoseconds",
}

/// Number of slots.
pub const COUNTERS: u32 = Counter::ALL.len() as u32;
