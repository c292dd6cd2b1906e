//! What single parameters mean, in types that cannot hold nonsense.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Keepalive, Lookup, UrlError};
use crate::model::Secret;

/// libpq before version 17 takes one second for two, since less is hardly ever enough.
const SHORTEST_TIMEOUT: u64 = 2;

/// How the connection is secured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::source) struct Tls {
    pub(in crate::source) mode: TlsMode,
    pub(in crate::source) negotiation: Negotiation,
    /// `sslrootcert`; the system's authorities where there is none.
    pub(in crate::source) roots: Option<PathBuf>,
    pub(in crate::source) client: Option<Client>,
    /// `sslcrl`: a file of certificates that are no longer good.
    pub(in crate::source) revoked: Option<PathBuf>,
    /// `sslcrldir`: a folder of such files.
    pub(in crate::source) revoked_folder: Option<PathBuf>,
    /// `sslsni=0`: the host's name is not sent in clear.
    pub(in crate::source) nameless: bool,
    /// `ssl_min_protocol_version` is above TLS 1.2.
    pub(in crate::source) newest_only: bool,
    /// `ssl_max_protocol_version` is below TLS 1.3.
    pub(in crate::source) without_newest: bool,
}

/// A certificate of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) struct Client {
    pub(in crate::source) certificate: PathBuf,
    pub(in crate::source) key: PathBuf,
    /// What the key is encrypted with.
    pub(in crate::source) password: Option<Secret>,
}

/// `sslmode`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::source) enum TlsMode {
    Disable,
    /// TLS where the server does not let us in without; nothing is checked.
    Allow,
    /// TLS where the server has it; nothing is checked.
    Prefer,
    /// TLS; nothing is checked.
    Require,
    /// The certificate must come from an authority that we trust.
    VerifyCa,
    /// And it must be for the host that we asked for.
    #[default]
    VerifyFull,
}

/// `sslnegotiation`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::source) enum Negotiation {
    /// PostgreSQL is asked whether it has TLS.
    #[default]
    Asked,
    /// TLS begins at once.
    Direct,
}

/// `channel_binding`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::source) enum Binding {
    Disable,
    #[default]
    Prefer,
    Require,
}

/// `target_session_attrs`. A role's or a database's read-only setting does not make a server
/// read-only for us, so `read-write` and `primary` are one here, and so are their opposites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) enum Wanted {
    Any,
    Primary,
    Standby,
    PreferStandby,
}

/// A way to say who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) enum Method {
    None,
    Password,
    Md5,
    Scram,
    /// What walmill does not speak: gss, sspi, oauth.
    Other,
}

/// `require_auth`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::source) struct Methods {
    listed: Vec<Method>,
    /// Whether the list says what is not allowed.
    inverted: bool,
}

impl Methods {
    /// Whether the server may ask for it.
    pub(in crate::source) fn allow(&self, method: Method) -> bool {
        self.listed.is_empty() || self.listed.contains(&method) != self.inverted
    }
}

/// The parameters that are said, and what is there without them.
pub(super) struct Keys<'a> {
    pub(super) parameters: &'a HashMap<&'static str, String>,
    pub(super) lookup: Lookup<'a>,
}

impl Keys<'_> {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A file that is said, or the one that is there by custom.
    pub(super) fn file(&self, name: &str, custom: &str) -> Option<PathBuf> {
        match self.get(name) {
            Some(file) => Some(file.into()),
            None => (self.lookup)("HOME").map(|home| Path::new(&home).join(custom)),
        }
    }

    /// The same, if the customary one is there.
    fn existing(&self, name: &str, custom: &str) -> Option<PathBuf> {
        self.file(name, custom).filter(|file| self.get(name).is_some() || file.is_file())
    }

    fn one_of<T: Copy>(
        &self,
        parameter: &'static str,
        expected: &'static str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, UrlError> {
        let Some(value) = self.get(parameter) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning);
        found.map(Some).ok_or(UrlError::Value { parameter, expected })
    }

    fn number(&self, parameter: &'static str) -> Result<Option<u64>, UrlError> {
        let Some(value) = self.get(parameter) else { return Ok(None) };
        // A negative number means none, as zero does.
        let number = value.trim().parse::<i64>().map(|number| number.max(0).unsigned_abs());
        number.map(Some).map_err(|_| UrlError::Value { parameter, expected: "a number" })
    }

    fn flag(&self, parameter: &'static str, default: bool) -> Result<bool, UrlError> {
        let words = [("0", false), ("1", true)];
        Ok(self.one_of(parameter, "0 or 1", &words)?.unwrap_or(default))
    }

    pub(super) fn tls(&self, local: bool) -> Result<Tls, UrlError> {
        let modes = [
            ("disable", TlsMode::Disable),
            ("allow", TlsMode::Allow),
            ("prefer", TlsMode::Prefer),
            ("require", TlsMode::Require),
            ("verify-ca", TlsMode::VerifyCa),
            ("verify-full", TlsMode::VerifyFull),
        ];
        let expected = "disable, allow, prefer, require, verify-ca or verify-full";
        let said = self.one_of("sslmode", expected, &modes)?;
        let of_system = self.get("sslrootcert") == Some("system");
        let roots = self.existing("sslrootcert", ".postgresql/root.crt").filter(|_| !of_system);
        let mode = match said {
            Some(mode) if of_system && mode != TlsMode::VerifyFull => {
                return Err(UrlError::Lists("`sslrootcert=system` goes with verify-full only"));
            }
            None if local && !of_system => TlsMode::Prefer,
            None => TlsMode::VerifyFull,
            // Who names an authority wants it to be asked.
            Some(TlsMode::Require) if roots.is_some() => TlsMode::VerifyCa,
            Some(mode) => mode,
        };
        let negotiations = [("postgres", Negotiation::Asked), ("direct", Negotiation::Direct)];
        let negotiation =
            self.one_of("sslnegotiation", "postgres or direct", &negotiations)?.unwrap_or_default();
        let weak = matches!(mode, TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer);
        if negotiation == Negotiation::Direct && weak {
            return Err(UrlError::Lists("`sslnegotiation=direct` goes with `sslmode=require` up"));
        }
        let versions = [("TLSv1", 0), ("TLSv1.1", 1), ("TLSv1.2", 2), ("TLSv1.3", 3)];
        let least = self.one_of("ssl_min_protocol_version", "TLSv1.2 or TLSv1.3", &versions)?;
        let most = self.one_of("ssl_max_protocol_version", "TLSv1.2 or TLSv1.3", &versions)?;
        if most.is_some_and(|most| most < 2 || least > Some(most)) {
            return Err(UrlError::Lists("walmill speaks TLSv1.2 and TLSv1.3, and neither is left"));
        }
        Ok(Tls {
            mode,
            negotiation,
            roots,
            client: self.client()?,
            revoked: self.existing("sslcrl", ".postgresql/root.crl"),
            revoked_folder: self.get("sslcrldir").map(Into::into),
            nameless: !self.flag("sslsni", true)?,
            newest_only: least == Some(3),
            without_newest: most == Some(2),
        })
    }

    fn client(&self) -> Result<Option<Client>, UrlError> {
        if self.get("sslcertmode") == Some("disable") {
            return Ok(None);
        }
        let certificate = self.existing("sslcert", ".postgresql/postgresql.crt");
        let key = self.existing("sslkey", ".postgresql/postgresql.key");
        match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let password = self.get("sslpassword").map(Secret::new);
                Ok(Some(Client { certificate, key, password }))
            }
            (None, None) => Ok(None),
            _ => Err(UrlError::HalfCertificate),
        }
    }

    pub(super) fn binding(&self) -> Result<Binding, UrlError> {
        let words = [
            ("disable", Binding::Disable),
            ("prefer", Binding::Prefer),
            ("require", Binding::Require),
        ];
        let found = self.one_of("channel_binding", "disable, prefer or require", &words)?;
        Ok(found.unwrap_or_default())
    }

    pub(super) fn wanted(&self, hosts: usize) -> Result<Wanted, UrlError> {
        let words = [
            ("any", Wanted::Any),
            ("read-write", Wanted::Primary),
            ("primary", Wanted::Primary),
            ("read-only", Wanted::Standby),
            ("standby", Wanted::Standby),
            ("prefer-standby", Wanted::PreferStandby),
        ];
        let expected = "any, read-write, read-only, primary, standby or prefer-standby";
        // Several hosts are most likely a primary and its standbys, and the slot is on the primary.
        let default = if hosts > 1 { Wanted::Primary } else { Wanted::Any };
        Ok(self.one_of("target_session_attrs", expected, &words)?.unwrap_or(default))
    }

    pub(super) fn methods(&self) -> Result<Methods, UrlError> {
        let mut methods = Methods::default();
        for (index, word) in self.get("require_auth").iter().flat_map(|v| v.split(',')).enumerate()
        {
            let (inverted, name) = match word.trim().strip_prefix('!') {
                Some(name) => (true, name),
                None => (false, word.trim()),
            };
            if index > 0 && inverted != methods.inverted {
                return Err(UrlError::Lists("`require_auth` mixes methods with and without `!`"));
            }
            methods.inverted = inverted;
            methods.listed.push(match name {
                "none" => Method::None,
                "password" => Method::Password,
                "md5" => Method::Md5,
                "scram-sha-256" => Method::Scram,
                "gss" | "sspi" | "oauth" => Method::Other,
                _ => {
                    return Err(UrlError::Value {
                        parameter: "require_auth",
                        expected: "a list of password, md5, scram-sha-256 and none, or of these \
                                   with `!`",
                    });
                }
            });
        }
        Ok(methods)
    }

    /// Without one, or with zero, walmill's own: it never waits for ever.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, UrlError> {
        let seconds = self.number("connect_timeout")?.filter(|seconds| *seconds > 0);
        Ok(seconds.map(|seconds| Duration::from_secs(seconds.max(SHORTEST_TIMEOUT))))
    }

    pub(super) fn keepalive(&self) -> Result<Keepalive, UrlError> {
        let seconds = |name, default| {
            Ok::<_, UrlError>(Duration::from_secs(self.number(name)?.unwrap_or(default)))
        };
        let count = self.number("keepalives_count")?.unwrap_or(3);
        let user_timeout = self.number("tcp_user_timeout")?.unwrap_or(60_000);
        Ok(Keepalive {
            on: self.flag("keepalives", true)?,
            idle: seconds("keepalives_idle", 30)?,
            interval: seconds("keepalives_interval", 10)?,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            user_timeout: Duration::from_millis(user_timeout),
        })
    }

    pub(super) fn shuffled(&self) -> Result<bool, UrlError> {
        let words = [("disable", false), ("random", true)];
        Ok(self.one_of("load_balance_hosts", "disable or random", &words)?.unwrap_or(false))
    }
}
