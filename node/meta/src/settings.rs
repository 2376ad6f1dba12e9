//! Bucket properties and the cluster's configuration: one table each that says which names there are, what a value may
//! be, and what must hold of all values together.
//!
//! Names are dotted (`mirror.copies`), as AIStore nests them in JSON. Values are texts in one canonical spelling, so
//! that equal settings are equal bytes. A default in these tables never changes: a bucket keeps only what differs from
//! them. Names that AIStore has and nothing here honours are refused with the reason, not accepted in silence.

mod bucket;
mod cluster;
mod kind;
pub mod timers;

pub use bucket::BUCKET;
pub use cluster::CLUSTER;
pub use kind::Kind;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Values by dotted name, canonical.
pub type Values = BTreeMap<String, String>;

/// Longest part of a bad name or value that an error repeats, bytes.
const SHOWN_MAX: usize = 80;
/// Below this likeness (0 to 1) no name is offered instead of an unknown one.
const NEAR: f64 = 0.6;
/// From here on a name that we refuse is a mistyped one of ours: one letter in nine (`log.leval`).
const TYPO: f64 = 0.88;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Dotted.
    pub name: &'static str,
    /// What a value may be.
    pub kind: Kind,
    /// Canonical.
    pub default: &'static str,
    /// Takes effect when it is committed; otherwise at the next start of each node.
    pub live: bool,
    /// One line.
    pub doc: &'static str,
}

/// A name, or all names below `NAME.`, that AIStore has and that means nothing here.
#[derive(Clone, Copy, Debug)]
pub struct Absent {
    /// Dotted.
    pub name: &'static str,
    /// What to do instead, or why there is none.
    pub why: &'static str,
}

/// Why a setting is refused. Texts from outside are cut.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum SettingError {
    /// No such name.
    #[error("unknown {what} '{name}'{}", nearest.as_ref().map(|n| format!("; did you mean '{n}'?")).unwrap_or_default())]
    Unknown {
        /// Bucket property or configuration key.
        what: String,
        /// As given.
        name: String,
        /// The most similar name, if one is similar.
        nearest: Option<String>,
    },
    /// AIStore's, but not ours.
    #[error("{what} '{name}' cannot be set: {why}")]
    Absent {
        /// Bucket property or configuration key.
        what: String,
        /// As given.
        name: String,
        /// What to do instead.
        why: String,
    },
    /// The value is none of that kind.
    #[error("invalid value '{value}' of {name}: {why}")]
    Value {
        /// Which.
        name: String,
        /// As given.
        value: String,
        /// What was expected.
        why: String,
    },
    /// Each value is fine, together they are not.
    #[error("{0}")]
    Together(String),
}

/// The settings of one kind of thing.
#[derive(Debug)]
pub struct Table {
    /// What one is called in errors.
    pub what: &'static str,
    /// The settings.
    pub groups: &'static [&'static [Setting]],
    /// Names that AIStore has and we refuse.
    pub absent: &'static [Absent],
    /// What must hold of all values together.
    pub together: fn(&All) -> Result<(), String>,
}

/// All values of a table: those given, and the defaults of the rest.
#[derive(Clone, Copy, Debug)]
pub struct All<'a> {
    table: &'a Table,
    given: &'a Values,
}

impl All<'_> {
    /// A value; empty if there is no such setting.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.given.get(name).map(String::as_str).or_else(|| self.table.default_of(name)).unwrap_or_default()
    }

    /// A switch.
    #[must_use]
    pub fn on(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    /// A number; 0 if it is none.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }
}

/// The beginning of a text from outside.
fn shown(text: &str) -> String {
    let cut = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= SHOWN_MAX).last();
    let head = &text[..cut.unwrap_or(0)];
    if head.len() < text.len() { format!("{head}...") } else { head.to_owned() }
}

impl Table {
    /// All settings, in the order of the table.
    pub fn settings(&self) -> impl Iterator<Item = &'static Setting> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// The setting of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'static Setting> {
        self.settings().find(|s| s.name == name)
    }

    /// Its default, canonical.
    #[must_use]
    pub fn default_of(&self, name: &str) -> Option<&'static str> {
        self.get(name).map(|s| s.default)
    }

    /// All defaults.
    #[must_use]
    pub fn defaults(&self) -> Values {
        self.settings().map(|s| (s.name.to_owned(), s.default.to_owned())).collect()
    }

    /// The canonical spelling of a value.
    ///
    /// # Errors
    /// [`SettingError`]: no such name, or not such a value.
    pub fn check(&self, name: &str, value: &str) -> Result<String, SettingError> {
        let Some(setting) = self.get(name) else {
            return Err(self.stranger(name));
        };
        setting.kind.canonical(value).map_err(|why| SettingError::Value {
            name: name.to_owned(),
            value: shown(value),
            why,
        })
    }

    /// `values` with `set` in it, each value checked and all of them together. `values` may lack what has its default,
    /// and may hold names of a newer version, which are left as they are.
    ///
    /// # Errors
    /// [`SettingError`]: the first thing that is wrong.
    pub fn apply(&self, mut values: Values, set: &Values) -> Result<Values, SettingError> {
        for (name, value) in set {
            values.insert(name.clone(), self.check(name, value)?);
        }
        (self.together)(&self.all(&values)).map_err(SettingError::Together)?;
        Ok(values)
    }

    /// `given`, and the defaults of the rest.
    #[must_use]
    pub fn all<'a>(&'a self, given: &'a Values) -> All<'a> {
        All { table: self, given }
    }

    /// Names of `set` that take effect only when nodes start again.
    #[must_use]
    pub fn needs_restart(&self, set: &Values) -> Vec<&'static str> {
        self.settings().filter(|s| !s.live && set.contains_key(s.name)).map(|s| s.name).collect()
    }

    fn stranger(&self, name: &str) -> SettingError {
        let what = self.what.to_owned();
        let below =
            |a: &&Absent| name.strip_prefix(a.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        // What is long is no typing error, and comparing costs its length.
        let nearest = (name.len() <= SHOWN_MAX).then(|| self.nearest(name)).flatten();
        if let Some(absent) = self.absent.iter().find(below)
            && nearest.is_none_or(|(likeness, _)| likeness < TYPO)
        {
            return SettingError::Absent { what, name: shown(name), why: absent.why.to_owned() };
        }
        let nearest = nearest.filter(|(likeness, _)| *likeness >= NEAR).map(|(_, name)| name.to_owned());
        SettingError::Unknown { what, name: shown(name), nearest }
    }

    fn nearest(&self, name: &str) -> Option<(f64, &'static str)> {
        let likeness = |s: &Setting| {
            let whole = strsim::normalized_damerau_levenshtein(name, s.name);
            // `copies` for `mirror.copies`.
            let last = s.name.rsplit('.').next().unwrap_or(s.name);
            whole.max(strsim::normalized_damerau_levenshtein(name, last) * 0.95)
        };
        self.settings().map(|s| (likeness(s), s.name)).max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)))
    }
}
