//! Where values come from, before anybody judges them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::keys::{KEYS, nearest};
use super::{env_name, flag_name};

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody.
    Default,
    /// The file.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
    /// A flag.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A value as text, and who set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// As it was written.
    pub text: String,
    /// By whom.
    pub source: Source,
}

/// Values by key.
pub type Values = BTreeMap<&'static str, Given>;

/// What the process finds around it; tests bring their own.
pub struct Surroundings<'a> {
    /// Reads a variable of the environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The host's name, if it has one.
    pub hostname: Option<&'a str>,
}

impl Surroundings<'static> {
    /// Those of this process. `hostname` is the kernel's.
    #[must_use]
    pub fn of_process(hostname: Option<&'static str>) -> Self {
        Self { env: &|name| std::env::var(name).ok(), hostname }
    }
}

/// The command line: `--config FILE` and one flag per key. Goes into a clap command as any derived `Args` does.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The file.
    pub config: Option<PathBuf>,
    /// What was set.
    pub values: BTreeMap<&'static str, String>,
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let file =
            Arg::new("config").long("config").value_name("FILE").env("AIS_CONFIG").help("Configuration file (YAML)");
        KEYS.iter().fold(command.arg(file), |command, key| {
            let arg =
                Arg::new(key.name).long(flag_name(key.name)).help(key.help).hide(key.hidden).action(ArgAction::Set);
            command.arg(if key.switch {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("true|false")
            } else {
                arg.value_name("VALUE")
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<String>("config").map(PathBuf::from);
        for key in KEYS {
            if let Some(text) = matches.get_one::<String>(key.name) {
                self.values.insert(key.name, text.clone());
            }
        }
        Ok(())
    }
}

/// What everybody says, and what is wrong with how they say it. An empty variable or flag counts as not set, so that a
/// manifest may name a variable that its ConfigMap lacks.
pub(super) fn collect(flags: &Flags, around: &Surroundings<'_>) -> (Values, Vec<String>) {
    let mut problems = Vec::new();
    let mut values = Values::new();
    let file = flags.config.as_deref().map(|path| file_values(path, &mut problems)).unwrap_or_default();
    for key in KEYS {
        let env = env_name(key.name);
        let from_env = || (around.env)(&env).filter(|t| !t.is_empty()).map(|text| (text, Source::Env(env.clone())));
        let from_file = || {
            let path = flags.config.clone().unwrap_or_default();
            file.get(key.name).map(|text| (text.clone(), Source::File(path)))
        };
        let given = flags.values.get(key.name).filter(|t| !t.is_empty()).map(|text| (text.clone(), Source::Flag));
        let given = given.or_else(from_env).or_else(from_file);
        let given = given.or_else(|| key.default.map(|text| (text.to_owned(), Source::Default)));
        if let Some((text, source)) = given {
            values.insert(key.name, Given { text: text.trim().to_owned(), source });
        }
    }
    (values, problems)
}

/// The file: every value is taken as the text that stands there, but the lists.
struct InFile(BTreeMap<String, Option<String>>);

/// Keys whose value may be a YAML list; it is as good as its parts with commas between them.
const LISTS: [&str; 1] = ["mountpaths"];

#[derive(Deserialize)]
#[serde(untagged)]
enum List {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for InFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = InFile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("'key: value' lines")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InFile, A::Error> {
                let mut found = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = if LISTS.contains(&&*key) {
                        map.next_value::<Option<List>>()?.map(|list| match list {
                            List::One(text) => text,
                            List::Many(parts) => parts.join(","),
                        })
                    } else {
                        map.next_value()?
                    };
                    if found.insert(key.clone(), value).is_some() {
                        return Err(serde::de::Error::custom(format!("key '{key}' is there twice")));
                    }
                }
                Ok(InFile(found))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

fn file_values(path: &Path, problems: &mut Vec<String>) -> BTreeMap<String, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) => {
            problems.push(format!("{} cannot be read: {e}; give another with --config", path.display()));
            return BTreeMap::new();
        }
    };
    if text.trim().is_empty() {
        return BTreeMap::new();
    }
    let mut found = match serde_saphyr::from_str(&text) {
        Ok(InFile(found)) => found,
        Err(e) => {
            problems.push(format!("{} is not 'key: value' lines of YAML: {e}", path.display()));
            return BTreeMap::new();
        }
    };
    found.retain(|name, _| {
        let known = KEYS.iter().any(|key| key.name == name);
        if !known {
            let hint = nearest(name).map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
            problems.push(format!("{}: unknown key '{name}'{hint}", path.display()));
        }
        known
    });
    found.into_iter().filter_map(|(name, text)| Some((name, text.filter(|t| !t.is_empty())?))).collect()
}
