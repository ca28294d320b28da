//! What the threads of a session share.
//!
//! Comes in: nothing. Goes out: locks, each held for microseconds. Never: a lock taken while another of these is
//! held, but the ledger's before the gate's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::board::Board;
use super::intake::Intake;
use super::notes::Notes;
use crate::probe::gate::Gate;
use crate::target::ModuleRegistry;

/// Shared by all threads of a session.
pub struct Shared {
    /// The ledger and its feed.
    pub intake: Intake,
    /// Mappings of processes through time.
    pub registry: ModuleRegistry,
    /// What a person should know.
    pub notes: Arc<Notes>,
    gate: Mutex<Gate>,
    board: Mutex<Board>,
}

impl Shared {
    /// Puts them together.
    pub fn new(intake: Intake, registry: ModuleRegistry, gate: Gate) -> Self {
        let notes = Arc::new(Notes::default());
        let board = Mutex::new(Board::new(Arc::clone(&notes)));
        Self { intake, registry, notes, gate: Mutex::new(gate), board }
    }

    /// The kernel side's list of traced processes.
    pub fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files with events, and processes that were added to them.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
