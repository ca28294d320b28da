//! What the verifier of each kernel goes through before it accepts a program, and whether that has grown.
//!
//! Comes in: instructions by program, as `leaktrace doctor` tells them in a guest, and the committed ones. Goes out:
//! a comparison in words, the new committed ones. Never: judges a kernel or a program that has no number yet.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::workspace;

/// Growth beyond this is a regression: a kernel's verifier gives up at a million instructions.
const MOST_GROWTH: f64 = 1.2;

/// Verified instructions by program.
pub type Cost = BTreeMap<String, u64>;

/// Of the JSON document of `leaktrace doctor`; kernels before 5.16 don't count.
pub fn of(doctor: &serde_json::Value) -> Cost {
    let programs = doctor.get("programs").and_then(serde_json::Value::as_object);
    let counted = |(name, count): (&String, &serde_json::Value)| Some((name.clone(), count.as_u64()?));
    programs.into_iter().flatten().filter_map(counted).collect()
}

fn file() -> PathBuf {
    workspace::root().join("docs/verifier-cost.json")
}

/// The committed costs by kernel.
pub fn committed() -> Result<BTreeMap<String, Cost>> {
    let file = file();
    if !file.exists() {
        return Ok(BTreeMap::new());
    }
    let text = std::fs::read_to_string(&file)?;
    serde_json::from_str(&text).with_context(|| format!("{} is broken", file.display()))
}

/// Commits new costs; kernels that were not booted keep theirs.
pub fn commit(new: BTreeMap<String, Cost>) -> Result<()> {
    let mut all = committed()?;
    all.extend(new);
    Ok(std::fs::write(file(), serde_json::to_string_pretty(&all)? + "\n")?)
}

/// One line for each program, and the names of those that have grown too much.
pub fn compare(known: &Cost, now: &Cost) -> (Vec<String>, Vec<String>) {
    let mut grown = Vec::new();
    let lines = now.iter().map(|(name, &count)| {
        let Some(&before) = known.get(name) else { return format!("  {name}: {count} instructions, new") };
        if count as f64 > before as f64 * MOST_GROWTH {
            grown.push(name.clone());
        }
        let growth = (count as f64 / before as f64 - 1.0) * 100.0;
        format!("  {name}: {count} instructions, {growth:+.0} %")
    });
    (lines.collect(), grown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(programs: &[(&str, u64)]) -> Cost {
        programs.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    }

    #[test]
    fn growth_of_a_fifth_is_let_through_and_more_is_named() {
        let known = cost(&[("free", 100), ("malloc", 100), ("gone", 5)]);
        let (lines, grown) = compare(&known, &cost(&[("free", 120), ("malloc", 121), ("fresh", 9)]));
        assert_eq!(grown, ["malloc"]);
        assert_eq!(lines[0], "  free: 120 instructions, +20 %");
        assert!(lines[1].contains("fresh") && lines[1].contains("new"), "{lines:?}");
        assert_eq!(compare(&known, &known).1, [""; 0]);
    }

    #[test]
    fn what_doctor_does_not_know_is_left_out() {
        let doctor = serde_json::json!({"programs": {"free": 7, "malloc": null}});
        assert_eq!(of(&doctor), cost(&[("free", 7)]));
        assert_eq!(of(&serde_json::json!({})), Cost::new());
    }
}
