//! Parses the command line of `sudo`.

use std::collections::BTreeMap;
use std::ffi::OsString;

use lexopt::prelude::*;

/// A parsed command line.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Arguments {
    /// The account that runs the command; by default root.
    pub(super) user: Option<String>,
    /// Whether the caller's variables are kept.
    pub(super) keep_env: bool,
    /// Whether to start a login shell in the account's home, for the command or interactively.
    pub(super) login: bool,
    /// Whether to start a shell, for the command or interactively.
    pub(super) shell: bool,
    /// `NAME=value` before the command.
    pub(super) env: BTreeMap<String, String>,
    /// The command and its arguments.
    pub(super) command: Vec<String>,
    /// Whether `sudo` succeeds without doing anything: `-v`, `-k`.
    pub(super) nothing: bool,
}

impl Arguments {
    /// Parses the words after the program's name.
    ///
    /// # Errors
    ///
    /// When an option is unknown or the command is missing.
    pub(super) fn parse(given: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let mut arguments = Self::default();
        let mut parser = lexopt::Parser::from_args(given);
        while let Some(argument) = parser.next()? {
            match argument {
                Short('u') | Long("user") => arguments.user = Some(parser.value()?.string()?),
                // Ignored: the group is always the account's own, and there is no password prompt.
                Short('g' | 'p') | Long("group" | "prompt") => drop(parser.value()?),
                Short('E') => arguments.keep_env = true,
                Long("preserve-env") => {
                    // The list is ignored and all variables are kept: nothing needs to be hidden from root.
                    parser.optional_value();
                    arguments.keep_env = true;
                }
                Short('i') | Long("login") => arguments.login = true,
                Short('s') | Long("shell") => arguments.shell = true,
                Short('v' | 'k' | 'K') | Long("validate" | "reset-timestamp" | "remove-timestamp") => {
                    arguments.nothing = true;
                }
                // Ignored: there is no password to ask for, and the home is always the account's.
                Short('A' | 'b' | 'H' | 'n' | 'P' | 'S')
                | Long("askpass" | "background" | "set-home" | "non-interactive" | "preserve-groups" | "stdin") => {}
                Value(first) => {
                    let rest = parser.raw_args()?.map(|rest| rest.string()).collect::<Result<Vec<_>, _>>()?;
                    let mut words = std::iter::once(first.string()?).chain(rest).peekable();
                    while let Some((name, value)) = words.peek().and_then(|word| assignment(word)) {
                        arguments.env.insert(name, value);
                        words.next();
                    }
                    arguments.command = words.collect();
                }
                other => return Err(other.unexpected()),
            }
        }
        arguments.nothing &= arguments.command.is_empty();
        if !arguments.nothing && arguments.command.is_empty() && !arguments.login && !arguments.shell {
            return Err("the command is missing".into());
        }
        Ok(arguments)
    }
}

fn assignment(word: &str) -> Option<(String, String)> {
    let (name, value) = word.split_once('=')?;
    let is_name = !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    is_name.then(|| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(OsString::from)).map_err(|err| err.to_string())
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        let parsed = parse("-n apt-get install -y jq").expect("arguments");
        assert_eq!(parsed.command, ["apt-get", "install", "-y", "jq"]);
        assert_eq!(parse("-u user -- -x").expect("arguments").command, ["-x"]);
    }

    #[test]
    fn users_variables_and_shells_are_understood() {
        let parsed = parse("-Eu user A=1 B=x=y env").expect("arguments");
        let env = [("A", "1"), ("B", "x=y")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let expected = Arguments {
            user: Some("user".into()),
            keep_env: true,
            env,
            command: vec!["env".into()],
            ..Arguments::default()
        };
        assert_eq!(parsed, expected);
        assert!(parse("-i").expect("arguments").login);
        assert!(parse("-v").expect("arguments").nothing);
        assert_eq!(parse("--preserve-env=A,B true").expect("arguments").command, ["true"]);
    }

    #[test]
    fn invalid_arguments_are_named() {
        assert_eq!(parse(""), Err("the command is missing".to_owned()));
        assert!(parse("--no-such-option x").expect_err("an error").contains("--no-such-option"));
    }
}
