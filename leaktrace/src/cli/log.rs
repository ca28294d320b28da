//! What leaktrace says about itself while it works: on stderr, so that stdout carries only the result.
//!
//! Comes in: the number of `-v`, and `LEAKTRACE_LOG`, which wins. Goes out: a process-wide subscriber. Never:
//! the report.

use std::env::VarError;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The environment variable that overrides `-v`: `debug`, or directives such as `leaktrace::probe=trace`.
pub const FILTER_VARIABLE: &str = "LEAKTRACE_LOG";

/// `LEAKTRACE_LOG` can't be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text names its fields")]
pub enum LogError {
    /// It is not a filter.
    #[error("{FILTER_VARIABLE}=`{text}` is not a log filter; use for example debug or leaktrace=trace")]
    Filter { text: String, source: ParseError },
    /// It is not text.
    #[error("{FILTER_VARIABLE} is not valid UTF-8; unset it or use for example debug")]
    NotUnicode,
}

/// Starts logging. To be called once, before the first thread.
pub fn init(verbosity: u8) -> Result<(), LogError> {
    let variable = match std::env::var(FILTER_VARIABLE) {
        Ok(text) => Some(text),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(_)) => return Err(LogError::NotUnicode),
    };
    let subscriber = tracing_subscriber::fmt()
        .compact()
        .with_env_filter(filter(verbosity, variable)?)
        .with_target(verbosity > 0)
        .with_writer(std::io::stderr);
    if verbosity > 0 {
        subscriber.with_timer(tracing_subscriber::fmt::time::uptime()).init();
    } else {
        subscriber.without_time().init();
    }
    Ok(())
}

/// Libraries stay a step quieter than leaktrace itself.
fn filter(verbosity: u8, variable: Option<String>) -> Result<EnvFilter, LogError> {
    let text = variable.filter(|text| !text.is_empty()).unwrap_or_else(|| {
        match verbosity {
            0 => "warn",
            1 => "warn,leaktrace=debug",
            _ => "debug,leaktrace=trace,aya=info,aya_obj=info",
        }
        .to_owned()
    });
    EnvFilter::try_new(&text).map_err(|source| LogError::Filter { text, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_counts_and_the_variable_wins() {
        let shown = |verbosity, variable: Option<&str>| {
            filter(verbosity, variable.map(str::to_owned)).unwrap().to_string()
        };
        assert_eq!(shown(0, None), "warn");
        assert_eq!(shown(1, None), "leaktrace=debug,warn");
        assert!(shown(2, None).contains("leaktrace=trace"));
        assert_eq!(shown(9, None), shown(2, None));
        assert_eq!(shown(2, Some("error")), "error");
        assert_eq!(shown(1, Some("")), "leaktrace=debug,warn");
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = filter(0, Some("leaktrace=loud".into())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "LEAKTRACE_LOG=`leaktrace=loud` is not a log filter; use for example debug or leaktrace=trace"
        );
    }
}
