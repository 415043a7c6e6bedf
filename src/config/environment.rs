//! The environment as a second layer of flags, and the few other variables that say where things belong.
//!
//! Reads nothing by itself: it is handed the variables.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use super::{Error, Flags};

const PREFIX: &str = "PEAT_NODE_";

/// The process environment, as far as it is text.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Takes the variables that are set and not empty.
    ///
    /// # Errors
    /// A `PEAT_NODE_*` variable is not UTF-8.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Environment, Error> {
        let mut kept = BTreeMap::new();
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) if value.is_empty() => {}
                Ok(value) => drop(kept.insert(name, value)),
                Err(_) if name.starts_with(PREFIX) => return Err(Error::new(&name, "is not valid UTF-8")),
                Err(_) => {}
            }
        }
        Ok(Environment { variables: kept })
    }

    /// The variable, when it is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The first directory of a variable that systemd fills with a colon-separated list.
    #[must_use]
    pub fn directory(&self, name: &str) -> Option<PathBuf> {
        self.get(name)?.split(':').next().filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// The flags that `PEAT_NODE_*` variables set.
    ///
    /// # Errors
    /// A variable stands for no flag.
    pub fn flags(&self) -> Result<Flags, Error> {
        let injected = |name: &str| name.strip_prefix(PREFIX).is_none_or(injected_by_kubernetes);
        flags(self.variables.iter().filter(|(name, _)| !injected(name)))
    }
}

/// The flags that `PEAT_NODE_*` variables with these values set.
pub(super) fn flags<'a>(variables: impl Iterator<Item = (&'a String, &'a String)>) -> Result<Flags, Error> {
    let mut arguments = Vec::new();
    for (name, value) in variables {
        arguments.push(flag(name).ok_or_else(|| Error::new(name, "stands for no flag of this version"))?);
        arguments.push(value.clone());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Flags::from_args(&["peat-node"], &arguments).map_err(|exit| Error::new(PREFIX, exit.output.trim_end()))
}

/// Whether a variable stands for a flag.
pub(super) fn is_known(name: &str) -> bool {
    flag(name).is_some()
}

/// A service called `peat-node` makes Kubernetes set these in every pod of its namespace.
fn injected_by_kubernetes(rest: &str) -> bool {
    rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_")
}

/// The flag that a variable stands for.
fn flag(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?;
    if rest == "PEERS" {
        return Some("--peer".to_owned());
    }
    let known = |flag: &&argh::FlagInfo<'_>| variable_ending(flag.long) == rest;
    Flags::get_args_info().flags.iter().find(known).map(|flag| flag.long.to_owned())
}

fn variable_ending(long: &str) -> String {
    long.trim_start_matches('-').replace('-', "_").to_uppercase()
}

/// The variable a flag (`--data-dir`) can also be given as.
#[must_use]
pub fn variable(long: &str) -> String {
    let ending = if long == "--peer" { "PEERS".to_owned() } else { variable_ending(long) };
    format!("{PREFIX}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Environment::new(variables).expect("text")
    }

    #[test]
    fn every_flag_can_be_given_as_a_variable() {
        for flag in Flags::get_args_info().flags.iter().filter(|flag| flag.long != "--help") {
            let flags = environment(&[(&variable(flag.long), "x")]).flags().expect("known");
            assert_ne!(flags, Flags::default(), "{} sets nothing", flag.long);
        }
    }

    #[test]
    fn an_empty_variable_is_unset() {
        assert_eq!(environment(&[("PEAT_NODE_BIND", "")]).flags().expect("known"), Flags::default());
    }

    #[test]
    fn an_unknown_variable_is_named() {
        let error = environment(&[("PEAT_NODE_BNID", "x")]).flags().expect_err("unknown");
        assert!(error.to_string().contains("PEAT_NODE_BNID"), "{error}");
    }

    #[test]
    fn what_kubernetes_injects_is_ignored() {
        let injected = [
            ("PEAT_NODE_PORT", "tcp://10.0.0.1:50051"),
            ("PEAT_NODE_PORT_50051_TCP_ADDR", "10.0.0.1"),
            ("PEAT_NODE_SERVICE_HOST", "10.0.0.1"),
        ];
        assert_eq!(environment(&injected).flags().expect("ignored"), Flags::default());
    }

    #[test]
    fn peers_have_a_plural() {
        assert_eq!(environment(&[("PEAT_NODE_PEERS", "a,b")]).flags().expect("known").peer, ["a,b"]);
    }

    #[test]
    fn a_systemd_directory_list_begins_with_ours() {
        let directory = environment(&[("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")]).directory("STATE_DIRECTORY");
        assert_eq!(directory, Some(PathBuf::from("/var/lib/a")));
    }
}
