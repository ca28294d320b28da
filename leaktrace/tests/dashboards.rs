//! The dashboard and the alert rules ask only for what is exported, and are explained.
//!
//! Comes in: `dashboards/`. Goes out: nothing. Never: Grafana, which can't be had everywhere. The one test that
//! needs a Prometheus is run by `cargo test -p leaktrace --test dashboards -- --ignored`.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use leaktrace::metrics::registry::{self, Type};
use serde_json::Value;

mod live;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

fn read(file: &str) -> String {
    let path = directory().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboard() -> Value {
    serde_json::from_str(&read("leaktrace.json")).unwrap()
}

/// The panels that show something.
fn panels() -> Vec<Value> {
    let panels = dashboard()["panels"].as_array().unwrap().clone();
    panels.into_iter().filter(|panel| panel["type"] != "row").collect()
}

fn title(panel: &Value) -> &str {
    panel["title"].as_str().unwrap()
}

fn expressions(panel: &Value) -> Vec<&str> {
    panel["targets"].as_array().unwrap().iter().map(|target| target["expr"].as_str().unwrap()).collect()
}

/// Names of our metrics in a text; recorded series have a colon in theirs.
fn metric_names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .filter(|word| word.starts_with("leaktrace_") || word.starts_with("process_"))
        .collect()
}

fn exported() -> BTreeSet<&'static str> {
    registry::ALL.iter().map(|metric| metric.name).collect()
}

#[test]
fn only_exported_metrics_are_asked_for() {
    let exported = exported();
    for file in ["leaktrace.json", "alerts.yaml", "alerts_test.yaml", "README.md"] {
        let text = read(file);
        let unknown: Vec<_> =
            metric_names(&text).into_iter().filter(|name| !exported.contains(name)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn every_metric_is_shown() {
    let text = read("leaktrace.json");
    let shown = metric_names(&text);
    let hidden: Vec<_> = exported().into_iter().filter(|name| !shown.contains(name)).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn panels_are_explained_and_filtered() {
    let mut titles = BTreeSet::new();
    for panel in panels() {
        let title = title(&panel);
        assert!(titles.insert(title.to_owned()), "{title}: twice");
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}: no description");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for expression in expressions(&panel) {
            let selectors = expression.matches('{').count();
            for filter in ["job=~\"$job\"", "instance=~\"$instance\""] {
                assert_eq!(expression.matches(filter).count(), selectors, "{title}: {filter}");
            }
        }
    }
}

/// A counter itself says nothing, unless it is shown as how often something happened at all.
#[test]
fn counters_are_shown_as_rates() {
    for panel in panels().iter().filter(|panel| panel["type"] == "timeseries") {
        for expression in expressions(panel) {
            let counters = registry::ALL
                .iter()
                .filter(|metric| metric.kind == Type::Counter)
                .map(|metric| expression.matches(metric.name).count())
                .sum::<usize>();
            assert_eq!(expression.matches("[$__rate_interval]").count(), counters, "{}", title(panel));
        }
    }
}

#[test]
fn variables_are_defined() {
    let dashboard = dashboard();
    let defined: BTreeSet<_> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    for name in ["datasource", "job", "instance", "group", "window"] {
        assert!(defined.contains(name), "{name}");
    }
    let text = read("leaktrace.json");
    for used in text.split('$').skip(1) {
        let name: String = used
            .trim_start_matches('{')
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let built_in = name.starts_with("__");
        assert!(built_in || defined.contains(name.as_str()), "${name}");
    }
}

#[test]
fn panels_do_not_overlap() {
    let mut cells = BTreeSet::new();
    for panel in dashboard()["panels"].as_array().unwrap() {
        let position = |key| panel["gridPos"][key].as_u64().unwrap();
        assert!(position("x") + position("w") <= 24, "{}", title(panel));
        for x in position("x")..position("x") + position("w") {
            for y in position("y")..position("y") + position("h") {
                assert!(cells.insert((x, y)), "{} at {x},{y}", title(panel));
            }
        }
    }
}

#[test]
fn readme_lists_every_panel_with_its_metrics() {
    let readme = read("README.md");
    for panel in panels() {
        let joined = expressions(&panel).join(" ");
        let names: Vec<_> = metric_names(&joined).iter().map(|name| format!("`{name}`")).collect();
        let row = format!("| {} | {} |", title(&panel), names.join(", "));
        assert!(readme.contains(&row), "README.md lacks: {row}");
    }
}

#[test]
fn readme_lists_every_alert() {
    let (rules, readme) = (read("alerts.yaml"), read("README.md"));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(!alerts.is_empty());
    for alert in alerts {
        assert!(readme.contains(&format!("| {alert} |")), "README.md lacks {alert}");
        assert!(read("alerts_test.yaml").contains(&format!("alertname: {alert}\n")), "{alert} has no test");
    }
}

/// Prometheus' own tool on the rules and their tests, where it is installed (Debian: `prometheus`).
#[test]
fn promtool_accepts_the_rules() {
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        match Command::new("promtool").args(arguments).current_dir(directory()).output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "promtool {}: {text}", arguments.join(" "));
            }
            Err(error) => eprintln!("promtool {} was not run: {error}", arguments.join(" ")),
        }
    }
}
