//! The variables of the environment: a typo in one is an error, not a server with other settings.

use std::env::vars_os;

use clap::CommandFactory as _;

use crate::cli::Cli;

/// Checks that every variable `TIDINGS_…` is one of a flag, and has a value.
///
/// # Errors
/// Which one is not, and what to do.
pub(crate) fn check() -> Result<(), String> {
    let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
    check_all(vars_os().map(|(name, value)| (text(name), text(value))))
}

fn check_all(variables: impl Iterator<Item = (String, String)>) -> Result<(), String> {
    let command = Cli::command();
    let known = |name: &str| {
        command.get_arguments().filter_map(|flag| flag.get_env()).any(|known| known == name)
    };
    for (name, value) in variables.filter(|(name, _)| name.starts_with("TIDINGS_")) {
        if is_of_kubernetes(&name, &value) {
            continue;
        }
        if cfg!(feature = "sabotage") && name == "TIDINGS_SABOTAGE" {
            continue;
        }
        if !known(&name) {
            return Err(format!(
                "the environment has {name}, which is no flag's variable: `--help` lists them"
            ));
        }
        if value.is_empty() {
            return Err(format!(
                "the environment has {name} without a value: give it one, or leave it out"
            ));
        }
    }
    Ok(())
}

/// Whether it is what Kubernetes sets in each pod for a Service that is called `tidings` or `tidings-…`: its host and
/// ports, and the links of Docker (`…_PORT=tcp://10.0.0.1:80`, `…_PORT_80_TCP_ADDR`).
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_link = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let is_part = ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| name.contains(protocol));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT") && is_link
        || name.contains("_PORT_") && is_part
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(name: &str, value: &str) -> Result<(), String> {
        check_all([(name.to_owned(), value.to_owned())].into_iter())
    }

    #[test]
    fn only_variables_of_flags_are_taken() {
        for good in ["TIDINGS_LISTEN", "TIDINGS_JWT_HS256_SECRET", "PATH", "TIDINGS"] {
            assert_eq!(check_one(good, "x"), Ok(()), "{good}");
        }
        for (link, value) in [
            ("TIDINGS_SERVICE_HOST", "10.0.0.1"),
            ("TIDINGS_SERVICE_PORT_HTTP", "8080"),
            ("TIDINGS_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("TIDINGS_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("TIDINGS_SERVER_PORT", "tcp://10.0.0.1:8080"),
        ] {
            assert_eq!(check_one(link, value), Ok(()), "{link}");
        }
        for wrong in ["TIDINGS_JWT_SECRET", "TIDINGS_PORT", "TIDINGS_REDIS_PORT"] {
            let told = check_one(wrong, "9000").expect_err("there is no such flag");
            assert!(told.contains(wrong) && told.contains("--help"), "{told}");
        }
    }

    #[test]
    fn a_variable_without_a_value_is_told() {
        assert_eq!(check_one("HOME", ""), Ok(()));
        let told = check_one("TIDINGS_PUBLISH_KEY", "").expect_err("it is empty");
        assert!(told.contains("TIDINGS_PUBLISH_KEY") && told.contains("leave it out"), "{told}");
    }
}
