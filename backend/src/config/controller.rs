// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `[[controller]]`: who may write policy.

use std::path::PathBuf;

use super::fields::{Fields, Table};
use super::{Config, Fault, Name, Place, Problem};

/// Most controllers of a node.
const MAX_CONTROLLERS: usize = 64;
/// Largest user id: the one above means "no change" to the system.
const MAX_UID: i64 = u32::MAX as i64 - 1;
const ORDER: &str = "two numbers, [lowest, highest]";

/// Who may write policy: a name, how it is recognised, and where its layers may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerConfig {
    /// Unique among controllers.
    pub name: Name,
    /// The user whose processes are it, on the control socket.
    pub uid: Option<u32>,
    /// A file with the bearer token by which it is recognised. Nobody but its owner may read it.
    pub token_file: Option<PathBuf>,
    /// The lowest and the highest order that its layers may have. No two bands overlap.
    pub order: [u32; 2],
}

/// What can be wrong with controllers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means, and its fields are the values in it")]
pub enum ControllerProblem {
    #[error("controller \"{name}\" cannot be recognised: it needs uid or token_file")]
    Anybody { name: String },
    #[error("order of controller \"{name}\" is not {ORDER}, from 0 to {max}, the lowest first", max = u32::MAX)]
    Band { name: String },
    #[error("controller name \"{name}\" is used twice")]
    Duplicate { name: String },
    #[error("order of controller \"{name}\" overlaps that of controller \"{other}\"")]
    Overlap { name: String, other: String },
}

/// Parses the `index`th `[[controller]]`.
pub(super) fn parse(table: &Table, index: usize) -> Result<ControllerConfig, Fault> {
    let fields = Fields::new(table, "controller", index, &["name", "uid", "token_file", "order"])?;
    let name = fields.required("name", fields.name("name")?)?;
    let token_file = fields.string("token_file")?.map(PathBuf::from);
    if token_file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
        return Err(fields.fault("token_file", |section| Problem::Empty { section, key: "token_file" }));
    }
    let uid = fields.integer("uid", 0, MAX_UID)?;
    let order = fields.required("order", fields.integers("order", ORDER)?)?;
    let band = match *order {
        [low, high] => u32::try_from(low).ok().zip(u32::try_from(high).ok()).filter(|(low, high)| low <= high),
        _ => None,
    };
    let bad = |_| ControllerProblem::Band { name: name.to_string() }.into();
    let (low, high) = band.ok_or_else(|| fields.fault("order", bad))?;
    Ok(ControllerConfig { name, uid, token_file, order: [low, high] })
}

impl Config {
    pub(super) fn check_controllers(&self) -> Result<(), Fault> {
        let found = self.controllers.len();
        if found > MAX_CONTROLLERS {
            let problem = Problem::TooMany { section: "controller", found, max: MAX_CONTROLLERS };
            return Err(Place::top("controller").fault(problem));
        }
        for (index, controller) in self.controllers.iter().enumerate() {
            let name = controller.name.to_string();
            let wrong = |key: &'static str, problem: ControllerProblem| {
                Err(Place { section: "controller", index, key: key.into() }.fault(problem.into()))
            };
            if controller.uid.is_none() && controller.token_file.is_none() {
                return wrong("name", ControllerProblem::Anybody { name });
            }
            let [low, high] = controller.order;
            if low > high {
                return wrong("order", ControllerProblem::Band { name });
            }
            for other in self.controllers.iter().take(index) {
                if other.name == controller.name {
                    return wrong("name", ControllerProblem::Duplicate { name });
                }
                if other.order[0] <= high && low <= other.order[1] {
                    let other = other.name.to_string();
                    return wrong("order", ControllerProblem::Overlap { name, other });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Machine;
    use super::*;

    fn parse(text: &str) -> Result<Vec<ControllerConfig>, String> {
        let config = Config::parse(text, "node.toml".as_ref(), &Machine::with_cpus([0]));
        config.map(|config| config.controllers).map_err(|error| error.to_string())
    }

    #[test]
    fn a_controller_is_a_user_or_the_holder_of_a_token() {
        let text = "[[controller]]\nname = 'acl'\nuid = 1001\norder = [0, 99]\n\
                    [[controller]]\nname = 'lb'\ntoken_file = '/etc/shunt/lb.token'\norder = [100, 100]\n";
        let name = |text| Name::new(text).expect("a name");
        let expected = [
            ControllerConfig { name: name("acl"), uid: Some(1001), token_file: None, order: [0, 99] },
            ControllerConfig {
                name: name("lb"),
                uid: None,
                token_file: Some("/etc/shunt/lb.token".into()),
                order: [100, 100],
            },
        ];
        assert_eq!(parse(text), Ok(expected.into()));
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn refusals_name_controller_and_line() {
        let with =
            |more: &str| format!("[[controller]]\nname = 'a'\nuid = 1\norder = [10, 19]\n[[controller]]\n{more}");
        for (text, expected) in [
            ("uid = 2\norder = [0, 9]", "node.toml:5: [[controller]] key \"name\" is missing"),
            ("name = 'b'\nuid = 2", "node.toml:5: [[controller]] key \"order\" is missing"),
            (
                "name = 'b'\norder = [0, 9]",
                "node.toml:6: controller \"b\" cannot be recognised: it needs uid or token_file",
            ),
            ("name = 'a'\nuid = 2\norder = [0, 9]", "node.toml:6: controller name \"a\" is used twice"),
            (
                "name = 'b'\nuid = 2\norder = [19, 30]",
                "node.toml:8: order of controller \"b\" overlaps that of controller \"a\"",
            ),
            (
                "name = 'b'\nuid = 2\norder = [9, 0]",
                "node.toml:8: order of controller \"b\" is not two numbers, [lowest, highest], from 0 to 4294967295, the lowest first",
            ),
            (
                "name = 'b'\nuid = 2\norder = 5",
                "node.toml:8: [[controller]] key \"order\" must be two numbers, [lowest, highest], not a whole number",
            ),
            (
                "name = 'b'\nuid = -1\norder = [0, 9]",
                "node.toml:7: [[controller]] key \"uid\" is -1, which is outside 0..=4294967294",
            ),
            (
                "name = 'b'\ntoken_file = ''\norder = [0, 9]",
                "node.toml:7: [[controller]] key \"token_file\" must not be empty",
            ),
            (
                "name = 'b'\ntoken = 'x'\norder = [0, 9]",
                "node.toml:7: unknown key \"token\" in [[controller]]; known keys: name, uid, token_file, order",
            ),
        ] {
            assert_eq!(parse(&with(text)).expect_err(text), expected);
        }
    }
}
