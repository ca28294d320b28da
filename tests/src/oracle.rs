//! A second opinion on the truths: what valgrind and the kernel see when a fixture runs.
//!
//! Comes in: a program that runs by itself, or a pid. Goes out: valgrind's leaks by site, or bytes of address space.
//! Never: leaktrace.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What valgrind found still allocated at the end of one process.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Bytes and blocks.
    pub total: (u64, u64),
    /// The same by the names of all functions of a stack, innermost first, without valgrind's own.
    pub stacks: BTreeMap<Vec<String>, (u64, u64)>,
}

impl InUse {
    /// Bytes and blocks of the stacks that a predicate picks.
    pub fn of(&self, picked: impl Fn(&[String]) -> bool) -> (u64, u64) {
        let picked = self.stacks.iter().filter(|(stack, _)| picked(stack));
        picked.fold((0, 0), |sum, (_, amount)| (sum.0 + amount.0, sum.1 + amount.1))
    }
}

/// Runs a fixture by itself under valgrind: what it printed, and what was in use at the end of each process.
pub fn valgrind(valgrind: &Path, program: &Path) -> (String, BTreeMap<u32, InUse>) {
    let output = Command::new(valgrind)
        .args(["--leak-check=full", "--show-leak-kinds=all", "--num-callers=40", "--leak-resolution=high"])
        .arg("--trace-children=yes")
        .arg(program)
        .arg("now")
        .output()
        .expect("valgrind runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    (String::from_utf8_lossy(&output.stdout).into_owned(), parse(&stderr))
}

/// Size of a process's address space in bytes.
pub fn address_space(pid: u32) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process runs");
    let length = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(start, 16).ok()?)
    };
    maps.lines().filter_map(length).sum()
}

/// Reads what valgrind says, each line with the pid that it is about.
fn parse(stderr: &str) -> BTreeMap<u32, InUse> {
    let mut seen: BTreeMap<u32, InUse> = BTreeMap::new();
    let mut records: BTreeMap<u32, ((u64, u64), Vec<String>)> = BTreeMap::new();
    for line in stderr.lines() {
        let Some((pid, text)) = line.strip_prefix("==").and_then(|line| line.split_once("==")) else {
            continue;
        };
        let Ok(pid) = pid.parse() else { continue };
        let text = text.trim();
        if let Some(total) = text.strip_prefix("in use at exit: ").and_then(amount) {
            seen.entry(pid).or_default().total = total;
        } else if text.contains(" in loss record ") {
            records.extend(amount(text).map(|amount| (pid, (amount, Vec::new()))));
        } else if let Some((_, frames)) = records.get_mut(&pid).filter(|_| text.contains(": ")) {
            frames.extend(function(text));
        } else if let Some((amount, frames)) = records.remove(&pid) {
            let sum = seen.entry(pid).or_default().stacks.entry(frames).or_default();
            *sum = (sum.0 + amount.0, sum.1 + amount.1);
        }
    }
    seen
}

/// `1,234 bytes in 5 blocks …`, `1,234 (24 direct, …) bytes in 5 blocks …`
fn amount(text: &str) -> Option<(u64, u64)> {
    let number = |text: &str| text.split(' ').next()?.replace(',', "").parse().ok();
    Some((number(text)?, number(text.split_once(" bytes in ")?.1)?))
}

/// `by 0x1234: function (file.c:1)`; `None` for valgrind's own allocation functions.
fn function(frame: &str) -> Option<String> {
    let (_, place) = frame.split_once(": ")?;
    (!place.contains("vgpreload")).then(|| place.split([' ', '(']).next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valgrind_s_words_are_understood() {
        let seen = parse(
            "==42== HEAP SUMMARY:\n\
             ==42==     in use at exit: 1,212 bytes in 13 blocks\n\
             ==42== \n\
             ==42== 12 bytes in 1 blocks are definitely lost in loss record 1 of 2\n\
             ==42==    at 0x48417B4: malloc (in /usr/libexec/valgrind/vgpreload_memcheck-amd64-linux.so)\n\
             ==42==    by 0x109315: leak (a.c:42)\n\
             ==42==    by 0x1098C0: main (a.c:91)\n\
             ==42== \n\
             ==42== 1,200 (1,000 direct, 200 indirect) bytes in 12 blocks are definitely lost in loss record 2 of 2\n\
             ==42==    at 0x48417B4: malloc (in /usr/libexec/valgrind/vgpreload_memcheck-amd64-linux.so)\n\
             ==42==    by 0x109316: other(int) (a.c:43)\n\
             ==42== \n",
        );
        assert_eq!(seen.keys().collect::<Vec<_>>(), [&42]);
        assert_eq!(seen[&42].total, (1212, 13));
        assert_eq!(seen[&42].of(|stack| stack == ["leak", "main"]), (12, 1));
        assert_eq!(seen[&42].of(|stack| stack[0] == "other"), (1200, 12));
    }
}
