//! Whether a site grows: its outstanding bytes over a window of moments, a line through them, and a verdict.
//!
//! Comes in: successive reports of one run, each with its time. Goes out: `growth_bytes_per_s` and `verdict` of their
//! sites. Never: a clock; a verdict on a window that is too short, or against what a scan found.
//!
//! The window is the last [`WINDOW`] moments, so it should be fed at an even pace: at one report in ten seconds it
//! is ten minutes long. The slope is the least-squares one. A site *grows* if all of these hold:
//!
//! - the slope is at least [`SURE`] times its standard error, which noise of ±30% around a constant is not;
//! - so is the newer half's, [`LIKELY`] times: a cache that filled up early and then stayed does not grow;
//! - the lowest point of each third is above the one before: a sawtooth returns to its floor.
//!
//! It is *stable* if the slope is below [`LIKELY`] standard errors, or the floor of the last third is not above that
//! of both others; otherwise it is left *unknown*, and a longer window will tell.
//!
//! With noise of ±30% (the tests below): of 1,000 constants none grows in a full window and one does in the shortest;
//! of 1,000 leaks that started at nothing all grow in a full window, and in the shortest two thirds do while the
//! others are left unknown; of 1,000 caches that filled up within half of the window 30 seem to grow. What this
//! cannot tell: a sawtooth whose period is longer than the window looks like growth, and a leak far below the noise
//! looks stable.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::model::{Process, Report, Site, Verdict};

/// Moments that are kept for each site: about 1 KiB.
pub const WINDOW: usize = 60;
/// Fewest moments of which a slope is given.
pub const MIN_FOR_SLOPE: usize = 4;
/// Fewest moments of which a verdict is given: four to a third.
pub const MIN_FOR_VERDICT: usize = 12;
/// Shortest window of which a verdict is given: what a program does in its first seconds says nothing.
pub const MIN_SPAN: Duration = Duration::from_secs(10);
/// Standard errors of a slope that is there: 1 in 10,000 by chance at [`MIN_FOR_VERDICT`] moments.
pub const SURE: f64 = 4.0;
/// Standard errors of a slope that may be there.
pub const LIKELY: f64 = 2.0;

/// The outstanding bytes of every site over the window.
#[derive(Debug, Default)]
pub struct History {
    series: HashMap<Key, VecDeque<Point>>,
}

/// A site of a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    pid: u32,
    start_time: u64,
    site_id: String,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    seconds: f64,
    bytes: f64,
}

impl Key {
    fn new(process: &Process, site: &Site) -> Self {
        Self { pid: process.pid, start_time: process.start_time, site_id: site.site_id.clone() }
    }
}

impl History {
    /// Adds a moment. `at` is the time since any one beginning, later than at the last call.
    ///
    /// A process that is gone keeps the window it had; a site that is no longer reported, or had nothing
    /// outstanding all through its window, is forgotten.
    pub fn record(&mut self, at: Duration, report: &Report) {
        let mut reported = HashSet::new();
        for process in &report.processes {
            for site in &process.sites {
                let key = Key::new(process, site);
                if !process.exited && (site.live_bytes > 0 || self.series.contains_key(&key)) {
                    let points = self.series.entry(key.clone()).or_default();
                    if points.len() == WINDOW {
                        points.pop_front();
                    }
                    points.push_back(Point { seconds: at.as_secs_f64(), bytes: site.live_bytes as f64 });
                }
                reported.insert(key);
            }
        }
        self.series
            .retain(|key, points| reported.contains(key) && points.iter().any(|point| point.bytes > 0.0));
    }

    /// Writes what is known about the growth of its sites into a report.
    pub fn judge(&self, report: &mut Report) {
        for process in &mut report.processes {
            for at in 0..process.sites.len() {
                let Some(points) = self.series.get(&Key::new(process, &process.sites[at])) else { continue };
                let points: Vec<_> = points.iter().copied().collect();
                let site = &mut process.sites[at];
                site.growth_bytes_per_s = slope(&points);
                // What a scan proved is not for a trend to change.
                if matches!(site.verdict, Verdict::Unknown | Verdict::Growing | Verdict::Stable) {
                    site.verdict = verdict(&points);
                }
            }
        }
    }
}

/// Bytes per second, in steps of a thousandth.
fn slope(points: &[Point]) -> Option<f64> {
    let line = Line::through(points)?;
    (points.len() >= MIN_FOR_SLOPE).then(|| (line.slope * 1e3).round() / 1e3)
}

fn verdict(points: &[Point]) -> Verdict {
    let (Some(first), Some(last), Some(line)) = (points.first(), points.last(), Line::through(points)) else {
        return Verdict::Unknown;
    };
    if points.len() < MIN_FOR_VERDICT || last.seconds - first.seconds < MIN_SPAN.as_secs_f64() {
        return Verdict::Unknown;
    }
    let third = points.len() / 3;
    let floor = |points: &[Point]| points.iter().map(|point| point.bytes).fold(f64::INFINITY, f64::min);
    let floors = [
        floor(&points[..third]),
        floor(&points[third..points.len() - third]),
        floor(&points[points.len() - third..]),
    ];
    let newer = Line::through(&points[points.len() / 2..]);
    let goes_on = newer.is_some_and(|line| line.significance() >= LIKELY);
    if line.significance() >= SURE && goes_on && floors[0] < floors[1] && floors[1] < floors[2] {
        Verdict::Growing
    } else if line.significance() < LIKELY || floors[2] <= floors[0].max(floors[1]) {
        Verdict::Stable
    } else {
        Verdict::Unknown
    }
}

/// A least-squares line.
struct Line {
    slope: f64,
    standard_error: f64,
}

impl Line {
    /// `None` of fewer than three points, or if all are of one moment.
    fn through(points: &[Point]) -> Option<Self> {
        let count = points.len() as f64;
        let mean = |of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (mean_x, mean_y) = (mean(|point| point.seconds), mean(|point| point.bytes));
        let spread: f64 = points.iter().map(|point| (point.seconds - mean_x).powi(2)).sum();
        if points.len() < 3 || spread <= 0.0 {
            return None;
        }
        let slope = points.iter().map(|p| (p.seconds - mean_x) * (p.bytes - mean_y)).sum::<f64>() / spread;
        let residue: f64 = points
            .iter()
            .map(|point| (point.bytes - mean_y - slope * (point.seconds - mean_x)).powi(2))
            .sum();
        Some(Self { slope, standard_error: (residue / (count - 2.0) / spread).sqrt() })
    }

    /// The slope in standard errors.
    fn significance(&self) -> f64 {
        if self.slope == 0.0 { 0.0 } else { self.slope / self.standard_error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    const MIB: f64 = 1_048_576.0;

    /// A moment every ten seconds.
    fn points(count: usize, bytes: impl Fn(f64) -> f64) -> Vec<Point> {
        let point = |i| Point { seconds: i as f64 * 10.0, bytes: bytes(i as f64).round() };
        (0..count).map(point).collect()
    }

    /// ±30%, the same in every run for a seed (splitmix64).
    fn noise(seed: u64, i: f64) -> f64 {
        let mut x = seed.wrapping_add((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^= x >> 31;
        0.7 + 0.6 * (x as f64 / u64::MAX as f64)
    }

    /// How many of 1,000 noisy windows get a verdict.
    fn of_1000(verdict: Verdict, count: usize, bytes: impl Fn(f64) -> f64) -> usize {
        let is = |seed: &u64| super::verdict(&points(count, |i| bytes(i) * noise(*seed, i))) == verdict;
        (0..1000).filter(is).count()
    }

    #[test]
    fn the_slope_is_the_least_squares_one() {
        let four = points(4, |i| [0.0, 30.0, 20.0, 50.0][i as usize]);
        assert_eq!(slope(&four), Some(1.4));
        assert_eq!(slope(&four[..3]), None, "too few");
        let one_moment = [Point { seconds: 1.0, bytes: 5.0 }; 8];
        assert_eq!(slope(&one_moment), None, "no time passed");
    }

    #[test]
    fn a_steady_leak_grows_and_a_constant_is_stable() {
        assert_eq!(verdict(&points(MIN_FOR_VERDICT, |i| i * 100.0)), Verdict::Growing);
        assert_eq!(verdict(&points(MIN_FOR_VERDICT, |_| MIB)), Verdict::Stable);
        assert_eq!(verdict(&points(MIN_FOR_VERDICT, |i| MIB - i)), Verdict::Stable, "shrinks");
        // 1 KiB/s beside a constant gigabyte, which no limit in percent would see.
        assert_eq!(verdict(&points(WINDOW, |i| 1024.0 * MIB + i * 1024.0)), Verdict::Growing);
        let stairs = |i: f64| (i / 5.0).floor() * MIB;
        assert_eq!(verdict(&points(WINDOW, stairs)), Verdict::Growing);
    }

    #[test]
    fn noise_makes_no_leak_and_hides_none() {
        for count in [MIN_FOR_VERDICT, 30, WINDOW] {
            let plateau = of_1000(Verdict::Growing, count, |_| MIB);
            assert!(plateau <= 1, "{plateau} of 1000 plateaus of {count} grow");
            let stable = of_1000(Verdict::Stable, count, |_| MIB);
            assert!(stable >= 970, "{stable} of 1000 plateaus of {count} are stable");
            let leaks = of_1000(Verdict::Stable, count, |i| (i + 1.0) * MIB);
            assert!(leaks <= 1, "{leaks} of 1000 leaks of {count} are stable");
        }
        for (count, at_least) in [(MIN_FOR_VERDICT, 600), (30, 970), (WINDOW, 999)] {
            let leaks = of_1000(Verdict::Growing, count, |i| (i + 1.0) * MIB);
            assert!(leaks >= at_least, "{leaks} of 1000 leaks of {count} grow");
        }
    }

    #[test]
    fn a_cache_that_filled_up_does_not_grow() {
        for full_after in [5.0, 10.0, 20.0, 30.0] {
            let cache = |i: f64| MIB * f64::min(i / full_after, 1.0);
            assert_ne!(verdict(&points(WINDOW, cache)), Verdict::Growing, "full after {full_after}");
            let grows = of_1000(Verdict::Growing, WINDOW, cache);
            assert!(grows <= 40, "full after {full_after}, with noise: {grows} of 1000 grow");
        }
    }

    #[test]
    fn a_sawtooth_does_not_grow() {
        for period in [2.0, 5.0, 7.0, 12.0, 20.0, 30.0, 40.0] {
            for phase in 0..period as usize {
                let tooth = |i: f64| MIB * (1.0 + (i + phase as f64) % period);
                let verdict = verdict(&points(WINDOW, tooth));
                assert_ne!(verdict, Verdict::Growing, "period {period}, phase {phase}");
            }
        }
        let rising = |i: f64| MIB * (i % 7.0) + i * MIB;
        assert_eq!(verdict(&points(WINDOW, rising)), Verdict::Growing, "unless its floor does");
    }

    #[test]
    fn short_windows_get_no_verdict() {
        assert_eq!(verdict(&points(MIN_FOR_VERDICT - 1, |i| i * 100.0)), Verdict::Unknown);
        let hasty: Vec<_> = (0..30).map(|i| Point { seconds: i as f64 * 0.1, bytes: i as f64 }).collect();
        assert_eq!(verdict(&hasty), Verdict::Unknown);
    }

    #[test]
    fn a_run_is_followed_by_process_and_site() {
        let mut history = History::default();
        let mut report = sample::report();
        for moment in 0..20 {
            report.processes[0].sites[0].live_bytes += 4096;
            history.record(Duration::from_secs(moment * 10), &report);
        }
        history.judge(&mut report);
        let site = &report.processes[0].sites[0];
        assert_eq!((site.growth_bytes_per_s, site.verdict), (Some(409.6), Verdict::Growing));
        let site = &report.processes[0].sites[1];
        assert_eq!((site.growth_bytes_per_s, site.verdict), (Some(0.0), Verdict::Stable));
        let exited = report.processes.iter().find(|process| process.exited).unwrap();
        assert!(exited.sites.iter().all(|site| site.growth_bytes_per_s.is_none()), "was never seen alive");

        // A new process with the same pid is another one.
        let mut reused = report.clone();
        reused.processes[0].start_time += 10_000_000;
        reused.processes[0].sites[0].verdict = Verdict::Unknown;
        history.judge(&mut reused);
        assert_eq!(reused.processes[0].sites[0].verdict, Verdict::Unknown);
    }

    #[test]
    fn what_is_over_is_kept_or_forgotten() {
        let mut history = History::default();
        let mut report = sample::report();
        for moment in 0..20 {
            report.processes[0].sites[0].live_bytes += 4096;
            history.record(Duration::from_secs(moment * 10), &report);
        }
        report.processes[0].exited = true;
        for moment in 20..200 {
            history.record(Duration::from_secs(moment * 10), &report);
        }
        history.judge(&mut report);
        assert_eq!(report.processes[0].sites[0].verdict, Verdict::Growing, "as it was at its exit");
        report.processes.clear();
        history.record(Duration::from_hours(1), &report);
        assert!(history.series.is_empty());
    }

    #[test]
    fn a_scans_verdict_stands() {
        let mut history = History::default();
        let mut report = sample::report();
        for moment in 0..20 {
            history.record(Duration::from_secs(moment * 10), &report);
        }
        report.processes[0].sites[0].verdict = Verdict::Unreachable;
        history.judge(&mut report);
        assert_eq!(report.processes[0].sites[0].verdict, Verdict::Unreachable);
    }
}
