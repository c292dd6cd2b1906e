//! Where a server may be: the lists `host`, `hostaddr` and `port`, side by side.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::UrlError;

/// Where PostgreSQL listens.
pub(in crate::source) const DEFAULT_PORT: u16 = 5432;

/// One of the places that an address names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) struct Host {
    pub(in crate::source) name: Name,
    /// Where the host is, if the address says so.
    pub(in crate::source) address: Option<IpAddr>,
    pub(in crate::source) port: u16,
}

/// What a host is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) enum Name {
    /// Nothing is said: this machine's socket, or its loopback interface.
    Default,
    Tcp(String),
    /// The folder of a Unix socket; one that begins with `@` is a name in Linux's abstract
    /// namespace.
    Unix(PathBuf),
}

/// The hosts that three lists name together.
pub(super) fn hosts(
    names: Option<&str>,
    addresses: Option<&str>,
    ports: Option<&str>,
) -> Result<Vec<Host>, UrlError> {
    let list = |text: Option<&str>| -> Vec<String> {
        text.map(|text| text.split(',').map(|part| part.trim().into()).collect())
            .unwrap_or_default()
    };
    let (names, addresses, ports) = (list(names), list(addresses), list(ports));
    let count = names.len().max(addresses.len()).max(1);
    let fits = |len: usize| len == 0 || len == count;
    if !fits(names.len()) || !fits(addresses.len()) {
        return Err(UrlError::Lists("`host` and `hostaddr` name different numbers of hosts"));
    }
    if !fits(ports.len()) && ports.len() != 1 {
        return Err(UrlError::Lists("`port` names neither one port nor one for each host"));
    }
    (0..count)
        .map(|index| {
            let port = ports.get(index).or(ports.first()).map_or("", String::as_str);
            let address = addresses.get(index).filter(|text| !text.is_empty());
            let address = address.map(|text| text.parse::<IpAddr>()).transpose();
            let address = address
                .map_err(|_| UrlError::Value { parameter: "hostaddr", expected: "IP addresses" })?;
            Ok(Host {
                name: name(names.get(index).map_or("", String::as_str), address),
                address,
                port: match port {
                    "" => DEFAULT_PORT,
                    port => port.parse().ok().filter(|port| *port > 0).ok_or(UrlError::Value {
                        parameter: "port",
                        expected: "numbers from 1 to 65535",
                    })?,
                },
            })
        })
        .collect()
}

fn name(text: &str, address: Option<IpAddr>) -> Name {
    match (text, address) {
        ("", Some(address)) => Name::Tcp(address.to_string()),
        ("", None) => Name::Default,
        (folder, _) if folder.starts_with(['/', '@']) => Name::Unix(folder.into()),
        (name, _) => Name::Tcp(name.into()),
    }
}

impl Host {
    /// Whether what we send there never leaves this machine.
    pub(super) fn is_local(&self) -> bool {
        let name = match &self.name {
            Name::Default | Name::Unix(_) => true,
            Name::Tcp(name) => {
                name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
        };
        name && self.address.is_none_or(|address| address.is_loopback())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Default => write!(f, "localhost:{}", self.port),
            Name::Tcp(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Name::Tcp(name) => write!(f, "{name}:{}", self.port),
            Name::Unix(folder) => write!(f, "{}/.s.PGSQL.{}", folder.display(), self.port),
        }
    }
}
