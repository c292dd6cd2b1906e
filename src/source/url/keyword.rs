//! libpq's parameters, and what becomes of each here (PostgreSQL docs, "Parameter Key Words" and
//! "Environment Variables").

use super::UrlError;

/// What walmill does with a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// As libpq does.
    Taken,
    /// It changes nothing here: why is in docs/connecting.md.
    Ignored,
    /// Anything but these values would be a promise that is not kept.
    Only(&'static [&'static str]),
}

/// A parameter that libpq knows.
#[derive(Debug)]
pub(super) struct Keyword {
    pub(super) name: &'static str,
    /// The environment variable that says it where the address does not.
    pub(super) variable: Option<&'static str>,
    pub(super) treatment: Treatment,
}

const fn taken(name: &'static str, variable: &'static str) -> Keyword {
    Keyword { name, variable: Some(variable), treatment: Treatment::Taken }
}

const fn unvaried(name: &'static str) -> Keyword {
    Keyword { name, variable: None, treatment: Treatment::Taken }
}

const fn ignored(name: &'static str, variable: Option<&'static str>) -> Keyword {
    Keyword { name, variable, treatment: Treatment::Ignored }
}

const fn only(
    name: &'static str,
    variable: Option<&'static str>,
    values: &'static [&'static str],
) -> Keyword {
    Keyword { name, variable, treatment: Treatment::Only(values) }
}

/// Every parameter of libpq 18.
pub(super) const KEYWORDS: &[Keyword] = &[
    taken("host", "PGHOST"),
    taken("hostaddr", "PGHOSTADDR"),
    taken("port", "PGPORT"),
    taken("dbname", "PGDATABASE"),
    taken("user", "PGUSER"),
    taken("password", "PGPASSWORD"),
    taken("passfile", "PGPASSFILE"),
    taken("service", "PGSERVICE"),
    taken("servicefile", "PGSERVICEFILE"),
    taken("options", "PGOPTIONS"),
    taken("application_name", "PGAPPNAME"),
    unvaried("fallback_application_name"),
    taken("connect_timeout", "PGCONNECT_TIMEOUT"),
    unvaried("keepalives"),
    unvaried("keepalives_idle"),
    unvaried("keepalives_interval"),
    unvaried("keepalives_count"),
    unvaried("tcp_user_timeout"),
    taken("target_session_attrs", "PGTARGETSESSIONATTRS"),
    taken("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    taken("require_auth", "PGREQUIREAUTH"),
    taken("channel_binding", "PGCHANNELBINDING"),
    taken("requirepeer", "PGREQUIREPEER"),
    taken("sslmode", "PGSSLMODE"),
    taken("sslnegotiation", "PGSSLNEGOTIATION"),
    taken("sslrootcert", "PGSSLROOTCERT"),
    taken("sslcert", "PGSSLCERT"),
    taken("sslkey", "PGSSLKEY"),
    unvaried("sslpassword"),
    taken("sslcrl", "PGSSLCRL"),
    taken("sslcrldir", "PGSSLCRLDIR"),
    taken("sslsni", "PGSSLSNI"),
    taken("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    taken("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    only("sslcertmode", Some("PGSSLCERTMODE"), &["allow", "disable"]),
    only("gssencmode", Some("PGGSSENCMODE"), &["disable", "prefer"]),
    only("min_protocol_version", Some("PGMINPROTOCOLVERSION"), &["3.0"]),
    only("sslkeylogfile", None, &[]),
    only("scram_client_key", None, &[]),
    only("scram_server_key", None, &[]),
    only("oauth_issuer", None, &[]),
    only("oauth_client_id", None, &[]),
    only("oauth_client_secret", None, &[]),
    only("oauth_scope", None, &[]),
    ignored("client_encoding", Some("PGCLIENTENCODING")),
    ignored("replication", None),
    ignored("sslcompression", Some("PGSSLCOMPRESSION")),
    ignored("max_protocol_version", Some("PGMAXPROTOCOLVERSION")),
    ignored("krbsrvname", Some("PGKRBSRVNAME")),
    ignored("gsslib", Some("PGGSSLIB")),
    ignored("gssdelegation", Some("PGGSSDELEGATION")),
];

/// The parameter of that name.
pub(super) fn find(name: &str) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| keyword.name == name)
}

impl Keyword {
    /// Whether walmill can do what this value asks for.
    pub(super) fn check(&self, value: &str) -> Result<(), UrlError> {
        match self.treatment {
            Treatment::Only(values) if !values.contains(&value) => {
                Err(UrlError::Refused { parameter: self.name, possible: values })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_and_variable_is_in_the_docs() {
        let docs = include_str!("../../../docs/connecting.md");
        for keyword in KEYWORDS {
            for word in [keyword.name].into_iter().chain(keyword.variable) {
                assert!(docs.contains(&format!("`{word}`")), "docs/connecting.md lacks {word}");
            }
        }
    }
}
