//! From an address to a session: each host and each of its addresses is asked in turn, until one
//! lets us in and is the kind of server that `target_session_attrs` wants.

use std::io;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use tokio::time::timeout;

use super::fault::{Fault, Report};
use super::login::{self, Purpose, Refusal, Session};
use super::net::{self, Address, Way};
use super::url::{Host, TlsMode, Url, Wanted};

/// For an address to take a connection, and for it to be secured.
const CONNECT: Duration = Duration::from_secs(10);
/// For the server to let us in.
const LOGIN: Duration = Duration::from_secs(30);

/// Where we got in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    host: Host,
    address: Address,
}

impl Place {
    /// Whether what we send there leaves this machine.
    pub(super) fn is_remote(&self) -> bool {
        matches!(&self.address, Address::Tcp(address) if !address.ip().is_loopback())
    }
}

/// Finds a server and logs in. The `attempt`s begin with one host after the other, so that one
/// that lets us in and then cannot serve is not the only one that is ever asked.
pub(super) async fn enter(
    url: &Url,
    purpose: Purpose,
    attempt: usize,
) -> Result<(Session, Place), Fault> {
    let mut hosts: Vec<&Host> = url.hosts.iter().collect();
    let first = attempt % hosts.len();
    hosts.rotate_left(first);
    if url.shuffled {
        hosts.shuffle(&mut rand::rng());
    }
    let rounds: &[Wanted] = match url.wanted {
        Wanted::PreferStandby => &[Wanted::Standby, Wanted::Any],
        Wanted::Any => &[Wanted::Any],
        Wanted::Primary => &[Wanted::Primary],
        Wanted::Standby => &[Wanted::Standby],
    };
    let mut failures = Vec::new();
    for wanted in rounds {
        failures.clear();
        for host in &hosts {
            match (Door { url, purpose, host, wanted: *wanted }).enter(&mut failures).await {
                Some(entered) => return Ok(entered),
                // Another host would ask for the same password, or have the same certificate.
                None if failures.last().is_some_and(|fault| !is_away(fault)) => break,
                None => {}
            }
        }
    }
    Err(together(failures))
}

/// Logs in once more where a session is, so that both speak with one server.
pub(super) async fn enter_beside(
    url: &Url,
    purpose: Purpose,
    place: &Place,
) -> Result<Session, Fault> {
    Door { url, purpose, host: &place.host, wanted: Wanted::Any }.knock(&place.address).await
}

fn is_away(fault: &Fault) -> bool {
    matches!(fault, Fault::Away(_))
}

/// One fault that tells of all of them.
fn together(mut failures: Vec<Fault>) -> Fault {
    let Some(last) = failures.pop() else {
        return Fault::away("there is no host to connect to", "name one in `source.url`");
    };
    let before: Vec<String> = failures.into_iter().filter_map(report).map(|r| r.error).collect();
    let also = |report: Report| {
        let errors: Vec<String> = before.iter().cloned().chain([report.error]).collect();
        Report { error: errors.join("; "), remedy: report.remedy }
    };
    match last {
        Fault::Away(last) => Fault::Away(also(last)),
        Fault::Person(last) => Fault::Person(also(last)),
        other => other,
    }
}

fn report(fault: Fault) -> Option<Report> {
    match fault {
        Fault::Away(report)
        | Fault::Taken(report)
        | Fault::Person(report)
        | Fault::Lost(report)
        | Fault::Halt(report) => Some(report),
        Fault::Store(_) => None,
    }
}

/// One host, and what we want there.
struct Door<'a> {
    url: &'a Url,
    purpose: Purpose,
    host: &'a Host,
    wanted: Wanted,
}

impl Door<'_> {
    /// Tries each of the host's addresses.
    async fn enter(&self, failures: &mut Vec<Fault>) -> Option<(Session, Place)> {
        let limit = self.url.timeout.unwrap_or(CONNECT);
        let doing = format!("connect to {}", self.host);
        let addresses = match timeout(limit, net::addresses(self.host)).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => {
                failures.push(Fault::away(
                    format!("{doing}: {error}"),
                    "correct the host's name in `source.url`, or look after the name service",
                ));
                return None;
            }
            Err(_) => {
                failures.push(Fault::silent(&doing, limit));
                return None;
            }
        };
        for address in addresses {
            let entered = match self.knock(&address).await {
                Ok(session) => self.is_wanted(session).await,
                Err(fault) => Err(fault),
            };
            match entered {
                Ok(session) => return Some((session, Place { host: self.host.clone(), address })),
                Err(fault) => failures.push(fault),
            }
            if failures.last().is_some_and(|fault| !is_away(fault)) {
                return None;
            }
        }
        None
    }

    /// Whether this is the kind of server that we want.
    async fn is_wanted(&self, mut session: Session) -> Result<Session, Fault> {
        let (standby, wanted) = match self.wanted {
            Wanted::Any | Wanted::PreferStandby => return Ok(session),
            Wanted::Primary => (false, "primary"),
            Wanted::Standby => (true, "standby"),
        };
        let limit = self.url.timeout.unwrap_or(LOGIN);
        let found = timeout(limit, session.is_standby(self.url)).await;
        if found.unwrap_or_else(|_| Err(Fault::silent("ask for its part", limit)))? == standby {
            return Ok(session);
        }
        let found = if standby { "primary" } else { "standby" };
        Err(Fault::away(
            format!("{} is a {found}, and a {wanted} is wanted", self.host),
            "nothing, if a failover is under way; else name the right hosts in `source.url`, or \
             another `target_session_attrs`",
        ))
    }

    /// Tries each of the ways that `sslmode` has.
    async fn knock(&self, address: &Address) -> Result<Session, Fault> {
        let mut refused = None;
        for way in net::ways(self.url, address) {
            match self.try_way(address, *way).await {
                Ok(session) => return Ok(session),
                Err(Refusal { fault, of_way: true }) => refused = refused.or(Some(fault)),
                // What the first way said is what a person has to know.
                Err(Refusal { fault, .. }) => return Err(refused.unwrap_or(fault)),
            }
        }
        Err(refused.unwrap_or_else(|| Fault::away("there is no way in", "see `sslmode`")))
    }

    async fn try_way(&self, address: &Address, way: Way) -> Result<Session, Refusal> {
        let doing = self.doing(address);
        let limit = self.url.timeout.unwrap_or(CONNECT);
        let link = match timeout(limit, net::open(self.url, self.host, address, way)).await {
            Ok(Ok(link)) => link,
            Ok(Err(error)) => {
                // `prefer` goes on without, where TLS does not come about.
                let of_way = way == Way::Tried && error.kind() == io::ErrorKind::InvalidData;
                return Err(Refusal { fault: refused(&doing, &error, self.url), of_way });
            }
            Err(_) => return Err(Fault::silent(&doing, limit).into()),
        };
        let limit = self.url.timeout.unwrap_or(LOGIN);
        let login = login::log_in(link, self.url, self.host, self.purpose);
        timeout(limit, login).await.unwrap_or_else(|_| Err(Fault::silent("log in", limit).into()))
    }

    fn doing(&self, address: &Address) -> String {
        let (host, address) = (self.host.to_string(), address.to_string());
        match address.contains('\0') || host == address {
            true => format!("connect to {host}"),
            false => format!("connect to {host} ({address})"),
        }
    }
}

fn refused(doing: &str, error: &io::Error, url: &Url) -> Fault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Fault::away(
            format!("{doing}: {error}"),
            "start PostgreSQL there, or correct host and port in `source.url`",
        ),
        io::ErrorKind::InvalidData if url.tls.mode != TlsMode::Disable => Fault::person(
            format!("{doing}: {error}"),
            "give the authority's certificate with `sslrootcert=FILE`, connect by a name that the \
             server's certificate has in its subjectAltName, or lower `sslmode` in `source.url`",
        ),
        io::ErrorKind::InvalidInput => {
            Fault::person(format!("{doing}: {error}"), "correct the file's name in `source.url`")
        }
        io::ErrorKind::PermissionDenied => {
            Fault::person(format!("{doing}: {error}"), "see who listens there")
        }
        io::ErrorKind::Unsupported => Fault::person(
            format!("{doing}: {error}"),
            "set `ssl = on` on the server, or `sslmode=disable` in `source.url` on a network that \
             you trust",
        ),
        _ => Fault::broken(doing, error),
    }
}
