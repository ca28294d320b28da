//! From a file to probe points.
//!
//! Comes in: an open program or library. Goes out: which allocators it holds, and for each of their functions
//! where to probe it and how its result is seen. Most files have none and cost one pass over their dynamic
//! symbols. Never: reads another file than the debug file that belongs to it.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;

use super::delegate::{Callee, Delegation, NO_RETURN, delegation};
use super::recognise::{Claim, Defined, role_of};
use super::returns::returns;
use super::{Role, cxx};
use crate::probe::code::{Function, Target, Text};
use crate::probe::debug_file;
use crate::probe::elf::{Bytes, ElfError, Image, SymbolTable};
use crate::probe::emulation::treatment;
use crate::probe::site::{Demand, Site, Stack, pick};

/// What a file has to probe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovery {
    /// Names of the allocators and other sources of memory in it.
    pub allocators: Vec<&'static str>,
    /// Where to probe.
    pub points: Vec<ProbePoint>,
    /// Functions that can't be probed.
    pub problems: Vec<Problem>,
}

/// One function to probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbePoint {
    /// Its symbol; one of them if it has several.
    pub function: String,
    /// The BPF program for it.
    pub role: Role,
    /// Where that goes.
    pub entry: Site,
    /// How its result is seen.
    pub exit: Exit,
}

/// How a function's result is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It need not be.
    None,
    /// By a return probe at the entry's site.
    ReturnProbe,
    /// By a plain probe on each of these `ret`s, where the stack pointer is what it was at the entry: an
    /// exception may leave the function, and a return probe would end the program then. Others may pass them
    /// too, with another stack pointer.
    ReturnSites(Vec<Site>),
}

/// A function that can't be probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its symbol.
    pub function: String,
    /// Why.
    pub why: String,
}

/// Why nothing is known about a file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message names its fields")]
pub enum DiscoverError {
    #[error(transparent)]
    Elf(#[from] ElfError),
    #[error(
        "no symbols: leaktrace can't find malloc in a stripped static program; install its debug file{}, or build it \
         without stripping",
        build_id.as_ref().map(|id| format!(" (build id {id})")).unwrap_or_default()
    )]
    Stripped { build_id: Option<String> },
}

/// Finds what to probe in a file.
///
/// `path` is where it was opened, for debug files beside it; `debug_roots` are directories like
/// `/usr/lib/debug`. A file without any allocation function is not an error.
pub fn discover(file: File, path: &Path, debug_roots: &[PathBuf]) -> Result<Discovery, DiscoverError> {
    let bytes = Bytes::new(file);
    let image = Image::parse(&bytes)?;
    let mut images = vec![image];
    let mut defined = Defined::read(&images)?;
    let mut claims = defined.claims();
    // What a library has for others is in its dynamic symbols. A program may have more, and so may a library
    // that keeps an allocator to itself.
    let debug_bytes = (!image.has(SymbolTable::Full) && (image.is_program() || claims.is_empty()))
        .then(|| debug_file::open(&image, path, debug_roots))
        .flatten();
    match &debug_bytes {
        Some(bytes) => {
            images.push(Image::parse(bytes)?);
            defined = Defined::read(&images)?;
            claims = defined.claims();
        }
        None if image.is_static_program() && !image.has(SymbolTable::Full) => {
            return Err(DiscoverError::Stripped { build_id: image.build_id() });
        }
        None => {}
    }
    if claims.is_empty() {
        return Ok(Discovery::default());
    }
    let survey = Survey::new(image, &defined, &claims)?;
    Ok(survey.probe(&claims))
}

/// The claimed functions of one file.
struct Survey<'d> {
    text: Text<'d>,
    allocating: FxHashSet<u64>,
    freeing: FxHashSet<u64>,
    never_returning: FxHashSet<u64>,
}

/// What becomes of a claim.
enum Verdict {
    /// Probed as this.
    As(Role),
    /// Not probed: what it leads to is.
    Covered,
}

impl<'d> Survey<'d> {
    fn new(image: Image<'d>, defined: &Defined<'d>, claims: &[Claim]) -> Result<Self, ElfError> {
        let addresses = |wanted: fn(Role) -> bool| {
            claims.iter().filter(|c| wanted(c.role)).map(|c| c.address).collect::<FxHashSet<_>>()
        };
        Ok(Self {
            text: Text::new(image)?,
            allocating: addresses(Role::allocates),
            freeing: addresses(|role| role == Role::Free),
            never_returning: NO_RETURN.iter().flat_map(|name| defined.addresses(name)).collect(),
        })
    }

    fn probe(&self, claims: &[Claim]) -> Discovery {
        let mut found = Discovery::default();
        let own_operators = self.has_own_operator_new(claims);
        for claim in claims {
            let Some(function) = self.text.function(claim.address, claim.size) else {
                found.problem(claim, "its address is not in the file's code");
                continue;
            };
            let Verdict::As(role) = self.verdict(claim, &function, own_operators) else { continue };
            if let Some(point) = self.point(claim, role, &function, &mut found) {
                found.points.push(point);
                if !found.allocators.contains(&claim.table.name) {
                    found.allocators.push(claim.table.name);
                }
            }
        }
        found
    }

    fn verdict(&self, claim: &Claim, function: &Function<'d>, own_operators: bool) -> Verdict {
        let operator = claim.table.name == cxx::NAME;
        // Deletes of blocks that `malloc` handed out end in `free`, whatever stands between.
        if operator && claim.role == Role::Free && !own_operators {
            return Verdict::Covered;
        }
        if claim.role != Role::Free && !claim.role.allocates() {
            return Verdict::As(claim.role);
        }
        match self.delegation(claim, function) {
            Delegation::Thunk => Verdict::Covered,
            // A free is recorded wherever it is seen, an allocation only at the outermost function.
            Delegation::Wrapper if claim.role == Role::Free => Verdict::Covered,
            Delegation::Wrapper if operator || claim.throws => Verdict::As(Role::New),
            Delegation::Wrapper | Delegation::None => Verdict::As(claim.role),
        }
    }

    /// Whether an `operator new` of the file hands out blocks that `malloc` doesn't know.
    fn has_own_operator_new(&self, claims: &[Claim]) -> bool {
        claims.iter().filter(|c| c.throws && c.role.allocates()).any(|claim| {
            let function = self.text.function(claim.address, claim.size);
            function.is_some_and(|f| self.delegation(claim, &f) == Delegation::None)
        })
    }

    fn delegation(&self, claim: &Claim, function: &Function<'d>) -> Delegation {
        let same_kind = if claim.role == Role::Free { &self.freeing } else { &self.allocating };
        delegation(&self.text, function, &|target| {
            let by_name = match target {
                Target::Import(import) => role_of(import.name),
                Target::Local(_) | Target::Unknown => None,
            };
            let probed = by_name.is_some_and(|role| (role == Role::Free) == (claim.role == Role::Free))
                || target.address().is_some_and(|a| a != claim.address && same_kind.contains(&a));
            match probed {
                true => Callee::Probed,
                false if self.never_returns(target) => Callee::NoReturn,
                false => Callee::Other,
            }
        })
    }

    fn never_returns(&self, target: &Target<'d>) -> bool {
        match target {
            Target::Local(address) => self.never_returning.contains(address),
            Target::Import(import) => NO_RETURN.iter().any(|name| name.as_bytes() == import.name),
            Target::Unknown => false,
        }
    }

    fn point(
        &self,
        claim: &Claim,
        role: Role,
        function: &Function<'d>,
        found: &mut Discovery,
    ) -> Option<ProbePoint> {
        let shifted = role.shifted();
        let places: Vec<_> = [Some(role), shifted].into_iter().flatten().map(Role::arguments).collect();
        let demand = Demand {
            places: &places,
            stack: match role {
                Role::Free | Role::LoaderState => Stack::MayMove,
                _ => Stack::AtReturnAddress,
            },
            null_is_nothing: role == Role::Free,
        };
        let picked = pick(function, &demand);
        let Some((place, entry)) = picked.and_then(|p| {
            Some((p.place, Site::new(self.text.image(), &p.instruction, p.treatment, p.depth)?))
        }) else {
            found.problem(claim, "the kernel can't probe the instructions at its start");
            return None;
        };
        let exit = match (role.returns_something(), claim.throws) {
            (false, _) => Exit::None,
            (true, false) => Exit::ReturnProbe,
            (true, true) => Exit::ReturnSites(self.return_sites(claim, function, found)?),
        };
        let role = if place == 0 { role } else { shifted.unwrap_or(role) };
        Some(ProbePoint { function: claim.name.clone(), role, entry, exit })
    }

    fn return_sites(
        &self,
        claim: &Claim,
        function: &Function<'d>,
        found: &mut Discovery,
    ) -> Option<Vec<Site>> {
        if !function.whole {
            found.problem(claim, "it may throw, and nothing says where it ends");
            return None;
        }
        let returns = returns(&self.text, function, &|target| self.never_returns(target));
        if let Some(unseen) = returns.unseen {
            found.problem(claim, &format!("it may throw, and returns through {unseen}"));
            return None;
        }
        let image = self.text.image();
        let sites = returns.sites.iter().filter_map(|at| {
            let bytes = image.code(at.ip(), at.len() as u64)?;
            Site::new(image, at, treatment(at, bytes), 0)
        });
        Some(sites.collect())
    }
}

impl Discovery {
    fn problem(&mut self, claim: &Claim, why: &str) {
        self.problems.push(Problem { function: claim.name.clone(), why: why.to_owned() });
    }
}
