// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! TOML text to generic values, and the line at which each key stood.

use std::collections::HashMap;

use serde_json::{Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fields::Table;
use super::{Place, Problem};

/// The line of every key of the top level and of the tables directly below it.
#[derive(Debug, Default)]
pub(super) struct Lines(HashMap<(String, usize, String), usize>);

impl Lines {
    /// The line of a key, from 1; where the key is not in the file, that of its table.
    pub(super) fn find(&self, place: &Place) -> Option<usize> {
        let at = |key: &str| self.0.get(&(place.section.to_owned(), place.index, key.to_owned())).copied();
        at(&place.key).or_else(|| at(""))
    }

    fn note(&mut self, section: &str, index: usize, key: &str, line: usize) {
        self.0.insert((section.to_owned(), index, key.to_owned()), line);
    }
}

/// Parses TOML.
///
/// # Errors
/// The line and the cause, if it is not TOML or uses a type that no key has.
pub(super) fn read(text: &str) -> Result<(Table, Lines), (Option<usize>, Problem)> {
    let line_of = |offset: usize| 1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count();
    let root = DeTable::parse(text).map_err(|error| {
        let message = error.message().trim().replace('\n', ", ");
        (error.span().map(|span| line_of(span.start)), Problem::Syntax { format: "TOML", message })
    })?;
    let mut lines = Lines::default();
    let mut table = Table::new();
    for (key, value) in root.get_ref() {
        let name: &str = key.get_ref();
        let line = line_of(key.span().start);
        lines.note("", 0, name, line);
        // [name] has one table, [[name]] several; an inline form has its own span.
        let tables: Vec<(usize, &DeTable<'_>)> = match value.get_ref() {
            DeValue::Table(table) => vec![(line_of(value.span().start), table)],
            DeValue::Array(array) => array
                .iter()
                .filter_map(|item| match item.get_ref() {
                    DeValue::Table(table) => Some((line_of(item.span().start), table)),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        for (index, (line, inner)) in tables.into_iter().enumerate() {
            lines.note(name, index, "", line);
            for inner_key in inner.keys() {
                lines.note(name, index, inner_key.get_ref(), line_of(inner_key.span().start));
            }
        }
        let value = generic(value).map_err(|(offset, found)| (Some(line_of(offset)), Problem::NoKeyTakes { found }))?;
        table.insert(name.to_owned(), value);
    }
    Ok((table, lines))
}

/// A TOML value as JSON, which has all that the configuration's keys use; else where it stands and what it is.
fn generic(value: &Spanned<DeValue<'_>>) -> Result<Value, (usize, &'static str)> {
    let unusable = |found| (value.span().start, found);
    Ok(match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(digits) => {
            let number = i64::from_str_radix(digits.as_str(), digits.radix());
            Value::Number(number.map_err(|_| unusable("a number beyond 64 bits"))?.into())
        }
        DeValue::Float(digits) => {
            let number = digits.as_str().parse().ok().and_then(Number::from_f64);
            Value::Number(number.ok_or_else(|| unusable("a number without a value"))?)
        }
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Datetime(_) => return Err(unusable("a date")),
        DeValue::Array(items) => Value::Array(items.iter().map(generic).collect::<Result<_, _>>()?),
        DeValue::Table(table) => {
            let entries = table.iter().map(|(key, value)| Ok((key.get_ref().to_string(), generic(value)?)));
            Value::Object(entries.collect::<Result<_, _>>()?)
        }
    })
}
