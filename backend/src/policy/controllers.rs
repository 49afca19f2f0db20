// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who is who: controllers are identities (decision 20).
//!
//! # Theory of operation
//!
//! On the control socket a caller is known by the user id that the system says (`SO_PEERCRED`), on any address by the bearer
//! token that it shows. A name is never believed: it only chooses among what the caller is anyway. User 0 and the user
//! that runs the node are its *owner*, may do everything, and may act as any controller by naming it. A node without
//! configured controllers has none but its owner, who may use any name then.
//!
//! | caller | recognised by | may |
//! |---|---|---|
//! | owner | user id | everything, as any controller |
//! | controller | user id or token | read everything but packets, write what it owns |
//! | reader | comes over TCP without a token | read everything but packets |
//! | stranger | any other user on the control socket | ask for version and description |

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use switch::Name;
use switch::model::Controller;

use crate::config::ControllerConfig;

/// Shortest token: 16 characters of a good generator cannot be guessed.
const MIN_TOKEN: usize = 16;
/// Longest token.
const MAX_TOKEN: usize = 4096;

/// All controllers of a node.
#[derive(Debug)]
pub struct Controllers {
    all: Vec<Identity>,
    owner: u32,
}

#[derive(Debug)]
struct Identity {
    controller: Controller,
    uid: Option<u32>,
    token: Option<Token>,
}

/// A secret, which is not shown.
struct Token(Vec<u8>);

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The control socket, and the user there.
    Local {
        /// Its id.
        uid: u32,
    },
    /// TCP.
    Remote,
}

/// Whom a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Who owns the node.
    Owner,
    /// One of these controllers, at least one.
    Controllers(Vec<Name>),
    /// Somebody on TCP.
    Reader,
    /// Some user of this machine.
    Stranger {
        /// Its id.
        uid: u32,
    },
}

/// Why controllers cannot be recognised.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Others may read the token.
    #[error("token file {} of controller {controller:?} may be read by others (mode {mode:04o}); make it 0600", path.display())]
    Exposed {
        /// Whose it is.
        controller: Name,
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file cannot be read.
    #[error("token file {} of controller {controller:?}: {source}", path.display())]
    Unreadable {
        /// Whose it is.
        controller: Name,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not a token.
    #[error(
        "token file {} of controller {controller:?} must hold one word of {MIN_TOKEN} to {MAX_TOKEN} printable characters",
        path.display()
    )]
    Unsuitable {
        /// Whose it is.
        controller: Name,
        /// The file.
        path: PathBuf,
    },
    /// Two controllers have one token, so there would be no telling who is who.
    #[error("controllers {one:?} and {other:?} have the same token")]
    Shared {
        /// One of them.
        one: Name,
        /// The other.
        other: Name,
    },
}

/// Why a request is not accepted from its caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// A token that is nobody's.
    #[error("the token is not that of a controller")]
    BadToken,
    /// No controller of this name is configured.
    #[error("no controller {name:?} is configured")]
    NoSuch {
        /// The name given.
        name: String,
    },
    /// A document of another controller than the one that is claimed to send it.
    #[error("the document is of controller {document:?}, and the request says {claimed:?}")]
    OtherDocument {
        /// Who sends it.
        claimed: String,
        /// Whose it is.
        document: Name,
    },
    /// The caller is somebody else.
    #[error("you are not controller {name:?} but {known}", known = list(.known))]
    NotYou {
        /// The name given.
        name: String,
        /// Who the caller is.
        known: Vec<Name>,
    },
    /// Only the owner of the node may do that.
    #[error("only the owner of the node may do that")]
    OwnerOnly,
    /// Changes over TCP need a token.
    #[error("this address is read-only without a token; changes are made through the control socket")]
    ReadOnly,
    /// The caller is nobody.
    #[error("user {uid} is neither the owner of the node nor a controller")]
    Stranger {
        /// The caller.
        uid: u32,
    },
    /// The caller is several controllers, or the owner.
    #[error("say which controller you act as, in the header Shunt-Controller{}", choices(.known))]
    WhichOne {
        /// Who the caller is; empty: the owner.
        known: Vec<Name>,
    },
}

impl Controllers {
    /// Reads all tokens.
    ///
    /// # Errors
    /// The first token that cannot be used.
    pub fn load(configs: &[ControllerConfig]) -> Result<Self, TokenError> {
        let mut all: Vec<Identity> = Vec::with_capacity(configs.len());
        for ControllerConfig { name, uid, token_file, order } in configs {
            let token = token_file.as_deref().map(|path| Token::read(name, path)).transpose()?;
            if let Some(token) = &token
                && let Some(other) = all.iter().find(|other| other.token.as_ref().is_some_and(|t| t.is(&token.0)))
            {
                return Err(TokenError::Shared { one: other.controller.name.clone(), other: name.clone() });
            }
            all.push(Identity { controller: Controller { name: name.clone(), order: *order }, uid: *uid, token });
        }
        Ok(Self { all, owner: rustix::process::geteuid().as_raw() })
    }

    /// Whether users other than the node's owner must be able to reach the control socket.
    #[must_use]
    pub fn has_other_users(&self) -> bool {
        self.all.iter().any(|identity| identity.uid.is_some_and(|uid| !self.is_owner(uid)))
    }

    /// Whom a request comes from that shows this token.
    ///
    /// # Errors
    /// The token is nobody's.
    pub fn who(&self, peer: Peer, token: Option<&[u8]>) -> Result<Caller, Forbidden> {
        if let Some(token) = token {
            // All are compared, so that time does not tell whose token resembles it.
            let found = self.all.iter().fold(None, |found, identity| {
                let is = identity.token.as_ref().is_some_and(|known| known.is(token));
                if is { Some(&identity.controller.name) } else { found }
            });
            return found.map(|name| Caller::Controllers(vec![name.clone()])).ok_or(Forbidden::BadToken);
        }
        let Peer::Local { uid } = peer else { return Ok(Caller::Reader) };
        if self.is_owner(uid) {
            return Ok(Caller::Owner);
        }
        let known = self.all.iter().filter(|identity| identity.uid == Some(uid));
        let known: Vec<_> = known.map(|identity| identity.controller.name.clone()).collect();
        Ok(if known.is_empty() { Caller::Stranger { uid } } else { Caller::Controllers(known) })
    }

    /// The controller as which a caller acts, if it says so by this name.
    ///
    /// # Errors
    /// It is not that one, or does not say which one.
    pub fn acting(&self, caller: &Caller, claimed: Option<&str>) -> Result<Controller, Forbidden> {
        match (caller, claimed) {
            (Caller::Reader, _) => Err(Forbidden::ReadOnly),
            (Caller::Stranger { uid }, _) => Err(Forbidden::Stranger { uid: *uid }),
            (Caller::Owner, None) => Err(Forbidden::WhichOne {
                known: self.all.iter().map(|identity| identity.controller.name.clone()).collect(),
            }),
            (Caller::Owner, Some(name)) if self.all.is_empty() => match Name::new(name) {
                Ok(name) => Ok(Controller { name, order: [0, u32::MAX] }),
                Err(_) => Err(Forbidden::NoSuch { name: name.to_owned() }),
            },
            (Caller::Owner, Some(name)) => {
                self.find(name).cloned().ok_or_else(|| Forbidden::NoSuch { name: name.to_owned() })
            }
            (Caller::Controllers(known), claimed) => {
                let name = match (claimed, known.as_slice()) {
                    (None, [only]) => only.as_str(),
                    (None, _) => return Err(Forbidden::WhichOne { known: known.clone() }),
                    (Some(name), _) => name,
                };
                let not_you = || Forbidden::NotYou { name: name.to_owned(), known: known.clone() };
                if !known.iter().any(|known| known == name) {
                    return Err(not_you());
                }
                self.find(name).cloned().ok_or_else(not_you)
            }
        }
    }

    fn find(&self, name: &str) -> Option<&Controller> {
        self.all.iter().map(|identity| &identity.controller).find(|controller| &*controller.name == name)
    }

    const fn is_owner(&self, uid: u32) -> bool {
        uid == 0 || uid == self.owner
    }
}

impl Caller {
    /// Whether it may change the node itself: ports.
    ///
    /// # Errors
    /// It may not.
    pub fn may_manage(&self) -> Result<(), Forbidden> {
        match self {
            Self::Owner => Ok(()),
            Self::Reader => Err(Forbidden::ReadOnly),
            Self::Stranger { uid } => Err(Forbidden::Stranger { uid: *uid }),
            Self::Controllers(_) => Err(Forbidden::OwnerOnly),
        }
    }

    /// Whether it may read.
    ///
    /// # Errors
    /// It may not.
    pub fn may_read(&self) -> Result<(), Forbidden> {
        match self {
            Self::Stranger { uid } => Err(Forbidden::Stranger { uid: *uid }),
            Self::Owner | Self::Controllers(_) | Self::Reader => Ok(()),
        }
    }
}

impl Token {
    fn read(controller: &Name, path: &Path) -> Result<Self, TokenError> {
        let (controller, path) = (controller.clone(), path.to_owned());
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| {
            // Of the open file, so that nobody exchanges it in between.
            let mode = file.metadata()?.mode() & 0o7777;
            file.take(MAX_TOKEN as u64 + 2).read_to_end(&mut text)?;
            Ok(mode)
        });
        let mode = match read {
            Ok(mode) => mode,
            Err(source) => return Err(TokenError::Unreadable { controller, path, source }),
        };
        if mode & 0o077 != 0 {
            return Err(TokenError::Exposed { controller, path, mode });
        }
        let token = text.trim_ascii();
        let suitable = (MIN_TOKEN..=MAX_TOKEN).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
        if suitable { Ok(Self(token.to_owned())) } else { Err(TokenError::Unsuitable { controller, path }) }
    }

    /// Whether it is the token shown; how long that takes depends on the length of what is shown only.
    fn is(&self, shown: &[u8]) -> bool {
        let mut difference = self.0.len() ^ shown.len();
        for (at, byte) in shown.iter().enumerate() {
            let known = self.0.get(at % self.0.len().max(1)).copied().unwrap_or_default();
            difference = std::hint::black_box(difference | usize::from(known ^ byte));
        }
        difference == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

fn list(names: &[Name]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" or ")
}

fn choices(names: &[Name]) -> String {
    if names.is_empty() { String::new() } else { format!(": {}", list(names)) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// No test runs as this user.
    const OTHER: u32 = 4_000_000;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn config(text: &str, uid: Option<u32>, token_file: Option<PathBuf>, low: u32) -> ControllerConfig {
        ControllerConfig { name: name(text), uid, token_file, order: [low, low + 9] }
    }

    fn token_file(dir: &Path, file: &str, token: &str, mode: u32) -> PathBuf {
        let path = dir.join(file);
        fs::write(&path, token).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        path
    }

    #[test]
    fn callers_are_who_the_system_or_their_token_says() {
        let dir = tempfile::tempdir().expect("a directory");
        let token = "0123456789abcdef";
        let file = token_file(dir.path(), "lb", &format!("{token}\n"), 0o600);
        let configs = [
            config("acl", Some(OTHER), None, 0),
            config("meter", Some(OTHER), None, 10),
            config("lb", Some(OTHER + 1), Some(file), 20),
        ];
        let controllers = Controllers::load(&configs).expect("loaded");
        assert!(controllers.has_other_users());
        let local = |uid| Peer::Local { uid };
        let both = Caller::Controllers(vec![name("acl"), name("meter")]);
        let lb = Caller::Controllers(vec![name("lb")]);
        let shown = Some(token.as_bytes());
        for (peer, token, expected) in [
            (local(0), None, Ok(Caller::Owner)),
            (local(rustix::process::geteuid().as_raw()), None, Ok(Caller::Owner)),
            (local(OTHER), None, Ok(both.clone())),
            (local(OTHER + 1), None, Ok(lb.clone())),
            (local(OTHER + 2), None, Ok(Caller::Stranger { uid: OTHER + 2 })),
            (local(OTHER + 2), shown, Ok(lb.clone())),
            (Peer::Remote, shown, Ok(lb.clone())),
            (Peer::Remote, None, Ok(Caller::Reader)),
            (Peer::Remote, Some(b"0123456789abcdee"), Err(Forbidden::BadToken)),
            (Peer::Remote, Some(b"0123456789abcde"), Err(Forbidden::BadToken)),
            (Peer::Remote, Some(b"0123456789abcdef0123456789abcdef"), Err(Forbidden::BadToken)),
            (local(0), Some(b""), Err(Forbidden::BadToken)),
        ] {
            assert_eq!(controllers.who(peer, token), expected, "{peer:?} {token:?}");
        }

        let acting = |caller: &Caller, claimed| {
            let acting = controllers.acting(caller, claimed);
            acting.map(|controller| controller.name.to_string()).map_err(|error| error.to_string())
        };
        let refused = |text: &str| Err(text.to_owned());
        assert_eq!(acting(&lb, None), Ok("lb".to_owned()));
        assert_eq!(acting(&both, Some("meter")), Ok("meter".to_owned()));
        assert_eq!(acting(&Caller::Owner, Some("acl")), Ok("acl".to_owned()));
        assert_eq!(acting(&both, Some("lb")), refused(r#"you are not controller "lb" but "acl" or "meter""#));
        let which = "say which controller you act as, in the header Shunt-Controller";
        assert_eq!(acting(&both, None), refused(&format!(r#"{which}: "acl" or "meter""#)));
        assert_eq!(acting(&Caller::Owner, None), refused(&format!(r#"{which}: "acl" or "meter" or "lb""#)));
        assert_eq!(acting(&Caller::Owner, Some("x")), refused(r#"no controller "x" is configured"#));
        let stranger = Caller::Stranger { uid: 7 };
        assert_eq!(acting(&stranger, Some("acl")), refused("user 7 is neither the owner of the node nor a controller"));
        assert!(acting(&Caller::Reader, Some("acl")).is_err() && stranger.may_read().is_err());
        assert!(lb.may_read().is_ok() && lb.may_manage().is_err() && Caller::Owner.may_manage().is_ok());
    }

    #[test]
    fn a_node_without_controllers_is_its_owners() {
        let controllers = Controllers::load(&[]).expect("loaded");
        assert!(!controllers.has_other_users());
        let acting = controllers.acting(&Caller::Owner, Some("any")).expect("its owner");
        assert_eq!((acting.name, acting.order), (name("any"), [0, u32::MAX]));
        assert_eq!(controllers.who(Peer::Local { uid: OTHER }, None), Ok(Caller::Stranger { uid: OTHER }));
    }

    #[test]
    fn tokens_that_others_can_read_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let load = |file: PathBuf| {
            let error = Controllers::load(&[config("lb", None, Some(file.clone()), 0)]).expect_err("refused");
            error.to_string().replace(&file.display().to_string(), "FILE")
        };
        let good = "0123456789abcdef";
        for mode in [0o640, 0o604, 0o666] {
            let expected =
                format!("token file FILE of controller \"lb\" may be read by others (mode {mode:04o}); make it 0600");
            assert_eq!(load(token_file(dir.path(), "exposed", good, mode)), expected);
        }
        let word = "token file FILE of controller \"lb\" must hold one word of 16 to 4096 printable characters";
        assert_eq!(load(token_file(dir.path(), "short", "0123456789abcde\n", 0o600)), word);
        assert_eq!(load(token_file(dir.path(), "words", "01234567 89abcdef", 0o600)), word);
        assert_eq!(load(token_file(dir.path(), "long", &"x".repeat(5000), 0o600)), word);
        let missing = "token file FILE of controller \"lb\": No such file or directory (os error 2)";
        assert_eq!(load(dir.path().join("missing")), missing);
        let one = token_file(dir.path(), "one", good, 0o400);
        let configs = [config("a", None, Some(one.clone()), 0), config("b", None, Some(one), 10)];
        let error = Controllers::load(&configs).expect_err("refused");
        assert_eq!(error.to_string(), "controllers \"a\" and \"b\" have the same token");
    }
}
