//! Typed arguments of a job: declaration, parsing of the command line and the environment, and access to the values.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use biscuit_core::{Error, Instant, Result, codes, parse_duration};

/// Secret value. `Debug` shows `***`, and the type has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns the value. Pass it on, and do not print it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArgumentShape {
    Text,
    List,
    Duration,
    Instant,
    Secret,
}

#[derive(Debug, Clone)]
enum ArgumentPresence {
    Required,
    Optional,
    Default(String),
}

/// Declaration of one argument: its name, its type, and whether it is required. Arguments are required by default,
/// except lists.
#[derive(Debug, Clone)]
pub struct Argument {
    name: String,
    shape: ArgumentShape,
    presence: ArgumentPresence,
}

impl Argument {
    // The constructors differ only in the type that [`Arguments::parse`] checks a value against.
    /// Declares a text argument.
    pub fn text(name: &str) -> Self {
        Self::new(name, ArgumentShape::Text, ArgumentPresence::Required)
    }

    /// Declares a list of texts, separated by commas or given by repeating the argument. A list is optional and is
    /// empty if it is absent.
    pub fn list(name: &str) -> Self {
        Self::new(name, ArgumentShape::List, ArgumentPresence::Optional)
    }

    /// Declares a duration such as `2h30m`; see [`parse_duration`] for the form.
    pub fn duration(name: &str) -> Self {
        Self::new(name, ArgumentShape::Duration, ArgumentPresence::Required)
    }

    /// Declares a point in time such as `2024-02-29T12:00:00Z`.
    pub fn instant(name: &str) -> Self {
        Self::new(name, ArgumentShape::Instant, ArgumentPresence::Required)
    }

    /// Declares a text that is never printed. Read it with [`ParsedArguments::secret`].
    pub fn secret(name: &str) -> Self {
        Self::new(name, ArgumentShape::Secret, ArgumentPresence::Required)
    }

    /// Makes the argument optional.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.presence = ArgumentPresence::Optional;
        self
    }

    /// Sets the value that the argument has if it is absent from the command line and from the environment.
    #[must_use]
    pub fn with_default(mut self, value: &str) -> Self {
        self.presence = ArgumentPresence::Default(value.to_owned());
        self
    }

    fn new(name: &str, shape: ArgumentShape, presence: ArgumentPresence) -> Self {
        Self { name: normal(name), shape, presence }
    }
}

/// Set of declared arguments, which are read from `--name value`, from `--name=value` or from the environment.
///
/// Hyphens and underscores in names are equivalent. A value that begins with two hyphens has to be written as
/// `--name=--value`. An argument that is not on the command line is read from the environment variable `NAME`, in
/// capitals and with underscores. All mistakes are reported in one error. The front page of the crate has an example.
#[derive(Debug, Clone, Default)]
pub struct Arguments {
    declared: Vec<Argument>,
}

impl Arguments {
    /// Creates the set from the declarations.
    pub fn new(declared: impl IntoIterator<Item = Argument>) -> Self {
        Self { declared: declared.into_iter().collect() }
    }

    /// Parses the command line, without the name of the program, and reads absent arguments from `environment`.
    ///
    /// # Errors
    /// `InvalidArguments`, which names each mistake: an argument that is missing, unknown, repeated, without a value,
    /// of the wrong type, or declared twice.
    pub fn parse<S: AsRef<str>>(
        &self,
        given: impl IntoIterator<Item = S>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<ParsedArguments> {
        let mut mistakes = Vec::new();
        let mut values = self.collect(given, &mut mistakes);
        for (i, d) in self.declared.iter().enumerate() {
            if self.declared[..i].iter().any(|e| e.name == d.name) {
                mistakes.push(format!("--{} is declared twice", d.name));
            }
            if !values.contains_key(&d.name) {
                // Precedence: command line, environment, default.
                match (environment(&d.name.to_uppercase().replace('-', "_")), &d.presence) {
                    (Some(v), _) => drop(values.insert(d.name.clone(), vec![v])),
                    (None, ArgumentPresence::Default(v)) => drop(values.insert(d.name.clone(), vec![v.clone()])),
                    (None, ArgumentPresence::Required) => mistakes.push(format!("--{} is required", d.name)),
                    (None, ArgumentPresence::Optional) => {}
                }
            }
            if let Some(given) = values.get(&d.name) {
                check(d, given, &mut mistakes);
            }
        }
        if !mistakes.is_empty() {
            return Err(Error::new(codes::INVALID_ARGUMENTS, mistakes.join("; ")));
        }
        let secret = |name: &String| self.declared.iter().any(|d| d.name == *name && d.shape == ArgumentShape::Secret);
        Ok(ParsedArguments { values: values.into_iter().map(|(k, v)| (k.clone(), (secret(&k), v))).collect() })
    }

    fn collect<S: AsRef<str>>(
        &self,
        given: impl IntoIterator<Item = S>,
        mistakes: &mut Vec<String>,
    ) -> BTreeMap<String, Vec<String>> {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut given = given.into_iter().peekable();
        while let Some(token) = given.next() {
            let Some(body) = token.as_ref().strip_prefix("--") else {
                mistakes.push("a value has no `--name` before it".to_owned());
                continue;
            };
            // In the form `--name value` a next token that begins with two hyphens is another argument and not the
            // value. Only two hyphens count, so that `-5` is a value.
            let (name, value) = match body.split_once('=') {
                Some((n, v)) => (normal(n), Some(v.to_owned())),
                None => (normal(body), given.next_if(|v| !v.as_ref().starts_with("--")).map(|v| v.as_ref().to_owned())),
            };
            match (self.declared.iter().find(|d| d.name == name), value) {
                (None, _) => mistakes.push(format!("--{name} is unknown")),
                (Some(_), None) => mistakes.push(format!("--{name} has no value")),
                (Some(_), Some(v)) => values.entry(name).or_default().push(v),
            }
        }
        values
    }
}

fn check(d: &Argument, given: &[String], mistakes: &mut Vec<String>) {
    if d.shape != ArgumentShape::List && given.len() > 1 {
        mistakes.push(format!("--{} is given {} times", d.name, given.len()));
    }
    let wrong = match d.shape {
        ArgumentShape::Duration => parse_duration(&given[0]).err(),
        ArgumentShape::Instant => given[0].parse::<Instant>().err(),
        ArgumentShape::Text | ArgumentShape::List | ArgumentShape::Secret => None,
    };
    mistakes.extend(wrong.map(|e| format!("--{}: {}", d.name, e.message())));
}

/// Returns the form of a name under which arguments are stored and looked up: no hyphens at the start, and hyphens in
/// place of underscores.
fn normal(name: &str) -> String {
    name.trim_start_matches('-').replace('_', "-")
}

/// Parsed and checked arguments. `Debug` shows secrets as `***`.
#[derive(Clone, Default)]
pub struct ParsedArguments {
    /// For each name, whether the argument is a secret, and its values in the order of the command line.
    values: BTreeMap<String, (bool, Vec<String>)>,
}

impl ParsedArguments {
    /// Returns the text of an argument.
    ///
    /// # Errors
    /// `UnknownArgument` if the argument is a secret, or if it is absent and has no default. The methods `duration`,
    /// `instant` and `secret` return the same error.
    pub fn text(&self, name: &str) -> Result<&str> {
        self.optional(name).ok_or_else(|| absent(name))
    }

    /// Returns the text of an argument, or `None` if it is a secret, or if it is absent and has no default.
    pub fn optional(&self, name: &str) -> Option<&str> {
        let (secret, values) = self.values.get(&normal(name))?;
        if *secret { None } else { values.first().map(String::as_str) }
    }

    /// Returns the elements of a list; empty if the argument is absent.
    pub fn list(&self, name: &str) -> Result<Vec<&str>> {
        let given = self.values.get(&normal(name)).map_or(&[][..], |(_, v)| v);
        Ok(given.iter().flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty()).collect())
    }

    /// Returns the argument as a duration.
    pub fn duration(&self, name: &str) -> Result<Duration> {
        parse_duration(self.text(name)?)
    }

    /// Returns the argument as a point in time.
    pub fn instant(&self, name: &str) -> Result<Instant> {
        self.text(name)?.parse()
    }

    /// Returns the secret with this name.
    pub fn secret(&self, name: &str) -> Result<Secret> {
        match self.values.get(&normal(name)) {
            Some((true, v)) => Ok(Secret(v[0].clone())),
            _ => Err(absent(name)),
        }
    }
}

impl fmt::Debug for ParsedArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            self.values.iter().map(|(k, (secret, v))| (k, if *secret { "***".to_owned() } else { v.join(",") }));
        f.debug_map().entries(shown).finish()
    }
}

fn absent(name: &str) -> Error {
    Error::new(
        codes::UNKNOWN_ARGUMENT,
        format!("--{} is not declared with this type, or is absent and has no default", normal(name)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let spec = Arguments::new([
            Argument::text("a"),
            Argument::duration("d"),
            Argument::instant("i"),
            Argument::secret("s"),
            Argument::text("twice"),
        ]);
        let given = ["--d", "90", "--i=never", "--s", "--unknown=1", "--twice=1", "--twice=2", "stray"];
        let e = spec.parse(given, &none).unwrap_err();
        for part in [
            "--a is required",
            "--d: `90`",
            "--i: `never`",
            "--s has no value",
            "--unknown is unknown",
            "--twice is given 2 times",
            "a value has no `--name`",
        ] {
            assert!(e.message().contains(part), "{part} not in {e}");
        }
    }

    #[test]
    fn hyphens_equal_underscores_and_the_environment_is_a_fallback() {
        let env = |n: &str| (n == "MAX_AGE").then(|| "1h".to_owned());
        let spec = Arguments::new([Argument::duration("max_age"), Argument::text("job-bookmark-from").optional()]);
        let args = spec.parse(["--job_bookmark_from=--x"], &env).unwrap();
        assert_eq!(args.duration("max-age").unwrap(), Duration::from_secs(3600));
        assert_eq!(args.optional("job-bookmark-from"), Some("--x"));
        let own = spec.parse(["--max-age", "2h"], &env).unwrap();
        assert_eq!(own.duration("max-age").unwrap(), Duration::from_secs(7200));
    }

    #[test]
    fn secret_is_masked_and_cannot_be_read_as_text() {
        let args = Arguments::new([Argument::secret("token")]).parse(["--token=abc123"], &none).unwrap();
        assert!(!format!("{args:?}{:?}", args.secret("token").unwrap()).contains("abc123"));
        assert_eq!(args.text("token").unwrap_err().code(), "UnknownArgument");
    }

    #[test]
    fn lists_come_from_commas_and_repeats() {
        let args = Arguments::new([Argument::list("key")]).parse(["--key=a, b", "--key", "c"], &none).unwrap();
        assert_eq!(args.list("key").unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn an_empty_value_and_a_negative_number_are_values() {
        let args =
            Arguments::new([Argument::text("a"), Argument::text("b")]).parse(["--a=", "--b", "-5"], &none).unwrap();
        assert_eq!((args.text("a").unwrap(), args.text("b").unwrap()), ("", "-5"));
    }

    /// Arguments as AWS Glue passes them. The table comes from Glue Biscuit, the predecessor of these crates, and
    /// includes the cases in which the predecessor crashes, guesses or ignores a mistake.
    #[test]
    fn arguments_of_a_glue_job_are_read_or_refused_exactly() {
        let glue = [
            "--foo=some_value",
            "--bar",
            "value_2",
            "--JOB_ID=some_job_id",
            "--JOB_RUN_ID=run_id",
            "--SECURITY_CONFIGURATION=config",
            "--continuation-option",
            "continuation-enabled",
            "--encryption-type=sse-s3",
        ];
        let names =
            ["foo", "bar", "JOB_ID", "JOB_RUN_ID", "SECURITY_CONFIGURATION", "continuation_option", "encryption_type"];
        let args = Arguments::new(names.map(Argument::text)).parse(glue, &none).unwrap();
        let texts: Vec<_> = names.iter().map(|n| args.text(n).unwrap()).collect();
        let want = ["some_value", "value_2", "some_job_id", "run_id", "config", "continuation-enabled", "sse-s3"];
        assert_eq!(texts, want);
        // The order of access does not matter, and hyphens can be used as well.
        assert_eq!((args.text("bar").unwrap(), args.text("foo").unwrap()), ("value_2", "some_value"));
        assert_eq!(args.text("continuation-option").unwrap(), "continuation-enabled");

        let text = |given: &[&str]| Arguments::new([Argument::text("my-arg")]).parse(given, &none);
        assert_eq!(text(&["--my_arg=x"]).unwrap().text("my-arg").unwrap(), "x");
        assert_eq!(text(&["--my-arg", "x"]).unwrap().text("my_arg").unwrap(), "x");
        for (given, said) in [
            (&[][..], "--my-arg is required"),
            (&["--my-arg=a", "--my_arg=b"], "is given 2 times"),
            (&["--my"], "--my is unknown"),
            (&["--my-arg", "--x"], "--my-arg has no value"),
        ] {
            let e = text(given).unwrap_err();
            assert!(e.message().contains(said), "{given:?}: {e}");
        }
        assert_eq!(text(&["--my-arg=--x"]).unwrap().text("my-arg").unwrap(), "--x");
        // An absent argument is `None`, and not a value of another type.
        let optional = Arguments::new([
            Argument::text("JOB_ID").optional(),
            Argument::text("job_bookmark_option").with_default("job-bookmark-disable"),
        ]);
        let args = optional.parse::<&str>([], &none).unwrap();
        assert_eq!(
            (args.optional("JOB_ID"), args.text("job-bookmark-option").unwrap()),
            (None, "job-bookmark-disable")
        );
        // Both ends of the range of a bookmark can be read. The bookmark itself reports a missing end.
        let ends = Arguments::new([
            Argument::text("job_bookmark_from").optional(),
            Argument::text("job_bookmark_to").optional(),
        ]);
        let args = ends.parse(["--job-bookmark-from=jr_2", "--job-bookmark-to=jr_4"], &none).unwrap();
        assert_eq!(
            (args.optional("job_bookmark_from"), args.optional("job_bookmark_to")),
            (Some("jr_2"), Some("jr_4"))
        );
        // No argument at all.
        assert!(Arguments::new([]).parse::<&str>([], &none).is_ok());
    }
}
