//! The variables of the environment: a typo in one is an error, not a server with other settings.

use std::env::vars_os;

use clap::CommandFactory as _;

use crate::cli::Cli;

/// Checks that every variable `TIDINGS_…` is one of a flag, and has a value.
///
/// # Errors
/// Which one is not, and what to do.
pub(crate) fn check() -> Result<(), String> {
    let names =
        vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.is_empty()));
    check_all(names)
}

fn check_all(variables: impl Iterator<Item = (String, bool)>) -> Result<(), String> {
    let command = Cli::command();
    let known = |name: &str| {
        command.get_arguments().filter_map(|flag| flag.get_env()).any(|known| known == name)
    };
    for (name, is_empty) in variables.filter(|(name, _)| name.starts_with("TIDINGS_")) {
        // What Kubernetes sets in each pod for a Service that is called `tidings`.
        if name.contains("_SERVICE_") || name.contains("_PORT") {
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
        if is_empty {
            return Err(format!(
                "the environment has {name} without a value: give it one, or leave it out"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(name: &str, is_empty: bool) -> Result<(), String> {
        check_all([(name.to_owned(), is_empty)].into_iter())
    }

    #[test]
    fn only_variables_of_flags_are_taken() {
        for good in ["TIDINGS_LISTEN", "TIDINGS_JWT_HS256_SECRET", "PATH", "TIDINGS"] {
            assert_eq!(check_one(good, false), Ok(()), "{good}");
        }
        for link in ["TIDINGS_SERVICE_HOST", "TIDINGS_PORT_8080_TCP", "TIDINGS_SERVER_PORT"] {
            assert_eq!(check_one(link, false), Ok(()), "{link}");
        }
        let told = check_one("TIDINGS_JWT_SECRET", false).expect_err("there is no such flag");
        assert!(told.contains("TIDINGS_JWT_SECRET") && told.contains("--help"), "{told}");
    }

    #[test]
    fn a_variable_without_a_value_is_told() {
        assert_eq!(check_one("HOME", true), Ok(()));
        let told = check_one("TIDINGS_PUBLISH_KEY", true).expect_err("it is empty");
        assert!(told.contains("TIDINGS_PUBLISH_KEY") && told.contains("leave it out"), "{told}");
    }
}
