// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The name of a port, a worker, or an object of policy.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// The name of a port, a worker, a controller, a layer, a group, a rule or a resource: 1 to [`Name::MAX_LEN`] letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
///
/// So it can stand in a file name, a URL, a metric label and a log line as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A string that cannot be a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadName {
    /// A character at byte `at` that names do not have.
    #[error("{name:?} has {character:?} at position {at}; names have letters, digits, '.', '_' and '-'")]
    Character {
        /// The name as given.
        name: String,
        /// The offending character.
        character: char,
        /// Its position, from 1.
        at: usize,
    },
    /// It has no characters.
    #[error("it is empty")]
    Empty,
    /// It begins with a character that a command line or a file name would read otherwise.
    #[error("{name:?} must begin with a letter or a digit")]
    Start {
        /// The name as given.
        name: String,
    },
    /// It has more than [`Name::MAX_LEN`] bytes.
    #[error("it has {len} bytes; the longest allowed has {max}", max = Name::MAX_LEN)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

impl Name {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 63;

    /// Checks a string.
    ///
    /// # Errors
    /// What is wrong with it.
    ///
    /// ```
    /// use switch::Name;
    /// assert_eq!(Name::new("vm-0.left").unwrap().as_str(), "vm-0.left");
    /// assert!(Name::new("../etc").is_err());
    /// ```
    pub fn new(name: impl Into<String>) -> Result<Self, BadName> {
        let name = name.into();
        if name.len() > Self::MAX_LEN {
            return Err(BadName::TooLong { len: name.len() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some((at, character)) = name.chars().enumerate().find(|(_, c)| !allowed(*c)) {
            return Err(BadName::Character { character, at: at.saturating_add(1), name });
        }
        match name.chars().next() {
            None => Err(BadName::Empty),
            Some(first) if !first.is_ascii_alphanumeric() => Err(BadName::Start { name }),
            Some(_) => Ok(Self(name)),
        }
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A literal that is a name by sight; it is not checked.
    #[must_use]
    pub fn from_static(name: &'static str) -> Self {
        Self(name.to_owned())
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Quoted, as messages show it.
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::new(text)
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
