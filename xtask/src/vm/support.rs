//! `docs/kernel-support.md`, from what guests said.
//!
//! Comes in: guests that ended as they should. Goes out: the page. Never: a word about a kernel that was not booted.

use std::fmt::Write as _;

use serde_json::Value;

use super::verdict::Guest;

/// The page about these kernels, each with its name on the command line.
pub fn page(guests: &[(String, Guest)], command: &str) -> String {
    let mut page = format!(
        "# Kernels\n\n\
         Written by `{command}`, which boots each kernel (Debian's, for clouds) in a virtual machine and runs the \
         suite there. Anything else that `leaktrace doctor` finds nothing missing on should work; below is what was \
         tried.\n\n\
         | kernel | from | result | falls back |\n|---|---|---|---|\n"
    );
    for (name, guest) in guests {
        let result = match &guest.refused {
            Some(_) => "refused, see below".to_owned(),
            None => format!("{} tests of the suite pass", guest.counts().passed),
        };
        let _ = writeln!(page, "| {} | Debian {name} | {result} | {} |", guest.kernel, fallbacks(guest));
    }
    for (name, guest) in guests {
        let _ = write!(page, "\n## {} ({name})\n\n", guest.kernel);
        if let Some(why) = &guest.refused {
            let _ = write!(page, "`leaktrace run` refuses:\n\n```\n{}\n```\n\n", why.trim());
        }
        let doctor = guest.section("doctor").map_or("", |section| section.text.trim_end());
        let _ = write!(page, "`leaktrace doctor` says:\n\n```\n{doctor}\n```\n");
    }
    page
}

/// Checks that are degraded.
fn fallbacks(guest: &Guest) -> String {
    let Some(facts) = facts(guest) else { return "-".to_owned() };
    let checks = facts.get("checks").and_then(Value::as_array).into_iter().flatten();
    let degraded = checks.filter(|check| check["state"] == "degraded").filter_map(|check| {
        Some(format!(
            "{}: {}",
            check["name"].as_str()?,
            check["remedy"].as_str().or(check["detail"].as_str())?
        ))
    });
    let all: Vec<_> = degraded.collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join("; ") }
}

/// The JSON document of `leaktrace doctor`.
pub fn facts(guest: &Guest) -> Option<Value> {
    serde_json::from_str(&guest.section("facts")?.text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(lines: &[&str]) -> Guest {
        let mut guest = Guest::new("w");
        for line in lines {
            guest.hears(line);
        }
        guest
    }

    #[test]
    fn the_page_tells_what_works_what_falls_back_and_what_is_refused() {
        let works = guest(&[
            "w kernel 6.1.0",
            "w begin doctor",
            "ok  kernel  6.1.0",
            "w end 0",
            "w begin facts",
            r#"{"checks": [{"name": "bpf_loop", "state": "degraded", "detail": "none", "remedy": "use 5.17"}],"#,
            r#""programs": {"free": 3}}"#,
            "w end 0",
            "w begin suite",
            "test result: ok. 41 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            "w end 0",
        ]);
        let refused = guest(&["w kernel 5.4.0", "w refused too old"]);
        let page = page(&[("bookworm".to_owned(), works), ("old".to_owned(), refused)], "cargo xtask x");
        assert!(
            page.contains("| 6.1.0 | Debian bookworm | 41 tests of the suite pass | bpf_loop: use 5.17 |"),
            "{page}"
        );
        assert!(page.contains("ok  kernel  6.1.0"), "{page}");
        assert!(page.contains("| 5.4.0 | Debian old | refused, see below | - |"), "{page}");
        assert!(page.contains("too old"), "{page}");
    }
}
