//! What each command does: a config in, an exit code out. Wiring only; the work is in the other directories.
//!
//! Comes in: [`crate::cli::config`]. Goes out: the result on stdout or in a file, [`crate::cli::Exit`]. Never:
//! decisions that a test would want to see.

pub mod diff;
pub mod doctor;
pub mod generate;
pub mod output;
pub mod report;
pub mod run;
