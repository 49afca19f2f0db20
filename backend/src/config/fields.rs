// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Typed look at one table of generic values, whether it came as TOML or as JSON.

use serde_json::{Map, Value};

use super::error::Section;
use super::{BadName, BadSocketPath, Fault, Name, Place, PortKind, Problem, SocketPath};

/// A table of generic values.
pub(super) type Table = Map<String, Value>;

/// One table, with the keys it may have.
pub(super) struct Fields<'a> {
    table: &'a Table,
    section: &'static str,
    index: usize,
}

impl<'a> Fields<'a> {
    /// Looks at the `index`th table of a section.
    ///
    /// # Errors
    /// If it has a key that is not among `known`.
    pub(super) fn new(
        table: &'a Table,
        section: &'static str,
        index: usize,
        known: &'static [&'static str],
    ) -> Result<Self, Fault> {
        let fields = Self { table, section, index };
        match table.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => {
                let problem = Problem::UnknownKey { section: Section(section), key: key.clone(), known };
                Err(Place { section, index, key: key.clone().into() }.fault(problem))
            }
            None => Ok(fields),
        }
    }

    /// `value`, or the fault that `key` is missing from this table.
    pub(super) fn required<T>(&self, key: &'static str, value: Option<T>) -> Result<T, Fault> {
        value.ok_or_else(|| {
            let problem = Problem::Missing { section: Section(self.section), key };
            self.place("").fault(problem)
        })
    }

    pub(super) fn string(&self, key: &'static str) -> Result<Option<&'a str>, Fault> {
        self.get(key, "a string", Value::as_str)
    }

    pub(super) fn boolean(&self, key: &'static str) -> Result<Option<bool>, Fault> {
        self.get(key, "true or false", Value::as_bool)
    }

    /// A whole number from `min` to `max`, both included.
    pub(super) fn integer<T: TryFrom<i64>>(&self, key: &'static str, min: i64, max: i64) -> Result<Option<T>, Fault> {
        let Some(value) = self.get(key, "a whole number", whole)? else { return Ok(None) };
        if let Ok(typed) = T::try_from(value)
            && (min..=max).contains(&value)
        {
            return Ok(Some(typed));
        }
        Err(self.fault(key, |section| Problem::OutOfRange { section, key, found: value, min, max }))
    }

    /// A list of whole numbers; `wanted` says what the list is.
    pub(super) fn integers(&self, key: &'static str, wanted: &'static str) -> Result<Option<Vec<i64>>, Fault> {
        let Some(list) = self.get(key, wanted, Value::as_array)? else { return Ok(None) };
        let numbers = list.iter().map(|value| whole(value).ok_or_else(|| self.mistyped(key, wanted, type_name(value))));
        numbers.collect::<Result<_, _>>().map(Some)
    }

    /// One of the spelled values of an enumeration.
    pub(super) fn choice<T: std::str::FromStr>(
        &self,
        key: &'static str,
        known: &'static [&'static str],
    ) -> Result<Option<T>, Fault> {
        self.parsed(key, |text| {
            text.parse().map_err(|_| Problem::UnknownValue {
                section: Section(self.section),
                key,
                found: text.to_owned(),
                known,
            })
        })
    }

    pub(super) fn name(&self, key: &'static str) -> Result<Option<Name>, Fault> {
        self.parsed(key, |text| Name::new(text).map_err(|cause| self.bad_name(key, cause)))
    }

    pub(super) fn names(&self, key: &'static str) -> Result<Option<Vec<Name>>, Fault> {
        let Some(list) = self.get(key, "an array of names", Value::as_array)? else { return Ok(None) };
        let named = list.iter().map(|value| {
            let text =
                value.as_str().ok_or_else(|| self.mistyped(key, "an array of names", "an array with other things"))?;
            Name::new(text).map_err(|cause| self.fault(key, |_| self.bad_name(key, cause)))
        });
        named.collect::<Result<_, _>>().map(Some)
    }

    pub(super) fn socket(&self, key: &'static str) -> Result<Option<SocketPath>, Fault> {
        let bad = |cause: BadSocketPath| Problem::BadSocketPath { section: Section(self.section), key, cause };
        self.parsed(key, |text| SocketPath::new(text).map_err(bad))
    }

    /// The fault that a string cannot be read as what it should be, or what it was read as.
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Result<Option<T>, Fault> {
        let Some(text) = self.string(key)? else { return Ok(None) };
        read(text).map(Some).map_err(|problem| self.fault(key, |_| problem))
    }

    /// Several strings in an array, or one without the array; none where the key is not there.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, Problem>,
    ) -> Result<Vec<T>, Fault> {
        let wanted = "a string or an array of strings";
        let item = |value: &Value| {
            let text = value.as_str().ok_or_else(|| self.mistyped(key, wanted, "an array with other things"))?;
            read(text).map_err(|problem| self.fault(key, |_| problem))
        };
        match self.table.get(key) {
            None => Ok(Vec::new()),
            Some(value @ Value::String(_)) => Ok(vec![item(value)?]),
            Some(Value::Array(list)) if list.is_empty() => {
                Err(self.fault(key, |section| Problem::Empty { section, key }))
            }
            Some(Value::Array(list)) => list.iter().map(item).collect(),
            Some(other) => Err(self.mistyped(key, wanted, type_name(other))),
        }
    }

    /// Refuses keys that ports of a kind do not have.
    pub(super) fn refuse(&self, keys: &[&'static str], kind: PortKind) -> Result<(), Fault> {
        match keys.iter().find(|key| self.table.contains_key(**key)) {
            Some(key) => Err(self.fault(key, |section| Problem::NotForKind { section, key, kind })),
            None => Ok(()),
        }
    }

    /// The tables under `key`, `[[key]]`.
    pub(super) fn tables(&self, key: &'static str) -> Result<Vec<&'a Table>, Fault> {
        let wanted = "an array of tables, [[..]]";
        let list = self.get(key, wanted, Value::as_array)?.map_or(&[][..], Vec::as_slice);
        list.iter()
            .map(|value| value.as_object().ok_or_else(|| self.mistyped(key, wanted, "an array with other things")))
            .collect()
    }

    /// The table under `key`, `[key]`.
    pub(super) fn table(&self, key: &'static str) -> Result<Option<&'a Table>, Fault> {
        self.get(key, "one table, [..]", Value::as_object)
    }

    /// A problem with what `key` says.
    pub(super) fn fault(&self, key: &'static str, problem: impl FnOnce(Section) -> Problem) -> Fault {
        self.place(key).fault(problem(Section(self.section)))
    }

    fn get<T>(
        &self,
        key: &'static str,
        wanted: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        match self.table.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.mistyped(key, wanted, type_name(value))),
        }
    }

    fn mistyped(&self, key: &'static str, wanted: &'static str, found: &'static str) -> Fault {
        self.fault(key, |section| Problem::Type { section, key, wanted, found })
    }

    fn bad_name(&self, key: &'static str, cause: BadName) -> Problem {
        Problem::BadName { section: Section(self.section), key, cause }
    }

    fn place(&self, key: &'static str) -> Place {
        Place { section: self.section, index: self.index, key: key.into() }
    }
}

/// Reads a JSON text that must be one object.
pub(super) fn json_object(text: &[u8]) -> Result<Table, Fault> {
    let syntax = |message: String| Place::top("").fault(Problem::Syntax { format: "JSON", message });
    match serde_json::from_slice(text).map_err(|e| syntax(e.to_string()))? {
        Value::Object(table) => Ok(table),
        other => Err(syntax(format!("expected an object, found {}", type_name(&other)))),
    }
}

/// Whole numbers beyond 64 bits saturate: they are out of any range that is asked for.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.is_u64().then_some(i64::MAX))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(n) if n.is_f64() => "a fraction",
        Value::Number(_) => "a whole number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "a table",
    }
}
