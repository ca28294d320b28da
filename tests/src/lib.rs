//! Harness for the tests that trace real programs.
//!
//! Comes in: fixture programs (`fixtures/`) that tell their own truth, and the `leaktrace` binary, used only
//! through its command line. Goes out: reports compared with truths, to the byte and block. Never: attaches to,
//! signals or ends a process that a test did not start.
//!
//! What is wrong with the world (a fixture that does not compile, a binary that hangs) is a panic: the caller is
//! a test. What the machine lacks is a skip, see [`environment`].

pub mod breakpoints;
pub mod compile;
pub mod cpu;
pub mod environment;
pub mod leaktrace;
pub mod oracle;
pub mod profile;
pub mod program;
pub mod schema;
pub mod tracefs;
pub mod truth;
