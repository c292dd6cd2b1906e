//! TLS as each `sslmode` means it, against certificates made by openssl.

use std::process::Command;

use tempfile::TempDir;
use walmill::cluster::{Cluster, Options};

use super::{complains, enters, folder, shown};

/// An authority of ours, a stranger, and what they signed.
pub struct Certificates(TempDir);

const SCRIPT: &str = r"set -e
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca
openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.crt -days 2 -subj /CN=o
printf 'subjectAltName=DNS:localhost\n' > names
openssl req -x509 -newkey rsa:2048 -nodes -keyout own.key -out own.crt -days 2 -subj /CN=own \
    -addext subjectAltName=DNS:localhost
sign() {
    openssl req -newkey rsa:2048 -nodes -keyout $1.key -out $1.csr -subj /CN=$2
    openssl x509 -req -in $1.csr -CA $3.crt -CAkey $3.key -CAcreateserial -days $4 \
        -sha384 -extfile names -out $1.crt
}
sign server server ca 2
sign expired server ca -1
sign client postgres ca 2
sign stranger postgres other 2
openssl pkcs8 -topk8 -v2 aes256 -passout pass:s3cret -in client.key -out sealed.key
openssl pkcs8 -topk8 -v2 aes-128-cbc -v2prf hmacWithSHA512 -passout pass:s3cret \
    -in client.key -out sealed2.key
openssl rsa -aes256 -traditional -passout pass:s3cret -in client.key -out old.key
touch index
echo 01 > number
printf '[ca]\ndefault_ca=c\n[c]\ndatabase=index\ncrlnumber=number\n' > ca.conf
printf 'default_md=sha256\ndefault_crl_days=2\n' >> ca.conf
openssl ca -config ca.conf -keyfile ca.key -cert ca.crt -gencrl -out none.crl
openssl ca -config ca.conf -keyfile ca.key -cert ca.crt -revoke server.crt
openssl ca -config ca.conf -keyfile ca.key -cert ca.crt -gencrl -out revoked.crl
mkdir crls
cp revoked.crl crls
chmod 0600 *.key
cp client.key open.key
chmod 0644 open.key";

impl Certificates {
    /// None where there is no openssl.
    pub fn make() -> Option<Self> {
        let folder = folder();
        let made = Command::new("sh").args(["-c", SCRIPT]).current_dir(&folder).output().ok()?;
        if !made.status.success() {
            eprintln!("skipped: there is no openssl here: {}", made.stderr.escape_ascii());
            return None;
        }
        Some(Self(folder))
    }

    pub fn path(&self, name: &str) -> String {
        shown(&self.0.path().join(name))
    }

    /// A server with one of the certificates, that lets in by these rules.
    async fn server(&self, name: &str, access: &[&str]) -> Cluster {
        let file = |name: &str| std::fs::read(self.0.path().join(name)).expect(name);
        let options = Options {
            files: vec![
                ("server.key".into(), file(&format!("{name}.key"))),
                ("server.crt".into(), file(&format!("{name}.crt"))),
                ("root.crt".into(), file("ca.crt")),
            ],
            ..super::with_access(access)
        };
        super::cluster(options.set("ssl", "on").set("ssl_ca_file", "root.crt")).await
    }
}

fn at(cluster: &Cluster, host: &str, options: &str) -> String {
    format!("{}?{options}", cluster.url().replace("127.0.0.1", host))
}

#[tokio::test]
async fn tls_is_what_the_address_asks_for() {
    let Some(files) = Certificates::make() else { return };
    let server = files.server("server", &[]).await;
    let ours = format!("sslrootcert={}", files.path("ca.crt"));
    let other = format!("sslrootcert={}", files.path("other.crt"));
    let (none, revoked) = (files.path("none.crl"), files.path("revoked.crl"));
    for (host, options) in [
        ("127.0.0.1", "sslmode=disable".to_owned()),
        ("127.0.0.1", "sslmode=allow".to_owned()),
        ("127.0.0.1", "sslmode=prefer&channel_binding=require".to_owned()),
        ("127.0.0.1", "sslmode=require".to_owned()),
        ("127.0.0.1", "sslmode=require&channel_binding=disable&sslsni=0".to_owned()),
        ("127.0.0.1", format!("sslmode=verify-ca&{ours}")),
        ("localhost", format!("sslmode=verify-full&{ours}&channel_binding=require")),
        ("localhost", format!("sslmode=verify-full&{ours}&ssl_min_protocol_version=TLSv1.3")),
        ("localhost", format!("sslmode=verify-full&{ours}&ssl_max_protocol_version=TLSv1.2")),
        ("localhost", format!("sslmode=verify-full&{ours}&sslcrl={none}")),
    ] {
        enters(&server, &at(&server, host, &options)).await;
    }
    let direct = at(&server, "localhost", "sslmode=require&sslnegotiation=direct");
    let version = "select current_setting('server_version_num')::int / 10000";
    let client = super::within(&server).await;
    match client.query_one(version, &[]).await.expect(version).get::<_, i32>(0) {
        17.. => enters(&server, &direct).await,
        _ => complains(&direct, "connect to localhost", "").await,
    }
    for (host, options, error, remedy) in [
        ("127.0.0.1", format!("sslmode=verify-full&{ours}"), "not valid for", "subjectAltName"),
        ("localhost", format!("sslmode=verify-ca&{other}"), "invalid peer", "sslrootcert"),
        ("localhost", format!("sslmode=require&{other}"), "invalid peer", "sslrootcert"),
        ("localhost", "sslmode=verify-full".into(), "invalid peer certificate", "sslrootcert"),
        ("localhost", "sslrootcert=system".into(), "invalid peer certificate", "sslrootcert"),
        (
            "localhost",
            format!("sslmode=verify-full&{ours}&sslcrl={revoked}"),
            "Revoked",
            "sslrootcert",
        ),
        (
            "localhost",
            format!("sslmode=verify-ca&{ours}&sslcrldir={}", files.path("crls")),
            "Revoked",
            "sslrootcert",
        ),
        (
            "localhost",
            "sslmode=verify-ca&sslrootcert=/nowhere/ca.crt".into(),
            "/nowhere/ca.crt",
            "file's name",
        ),
    ] {
        complains(&at(&server, host, &options), error, remedy).await;
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_or_that_a_stranger_signed_is_refused() {
    let Some(files) = Certificates::make() else { return };
    let ours = format!("sslmode=verify-full&sslrootcert={}", files.path("ca.crt"));
    let expired = files.server("expired", &[]).await;
    complains(&at(&expired, "localhost", &ours), "Expired", "sslrootcert").await;
    enters(&expired, &at(&expired, "localhost", "sslmode=require")).await;
    let itself = files.server("own", &[]).await;
    complains(&at(&itself, "localhost", &ours), "invalid peer certificate", "sslrootcert").await;
    // As PostgreSQL's instructions have it: the certificate is its own authority.
    let own = format!("sslrootcert={}", files.path("own.crt"));
    enters(&itself, &at(&itself, "localhost", &own)).await;
    enters(&itself, &at(&itself, "127.0.0.1", &format!("sslmode=verify-ca&{own}"))).await;
    let full = format!("sslmode=verify-full&{own}");
    complains(&at(&itself, "127.0.0.1", &full), "not valid for", "subjectAltName").await;
}

#[tokio::test]
async fn a_server_without_tls_is_refused_by_those_who_require_it() {
    let plain = super::cluster(Options::default()).await;
    enters(&plain, &at(&plain, "127.0.0.1", "sslmode=prefer")).await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = at(&plain, "127.0.0.1", &format!("sslmode={mode}"));
        complains(&url, "the server has no TLS", "ssl = on").await;
    }
    let unbound = at(&plain, "127.0.0.1", "channel_binding=require");
    complains(&unbound, "does not bind the login", "scram-sha-256").await;
}

#[tokio::test]
async fn where_only_one_way_is_open_allow_and_prefer_find_it() {
    let Some(files) = Certificates::make() else { return };
    let both = "host all postgres 127.0.0.1/32 scram-sha-256";
    for (rules, open, shut) in [
        (["hostnossl all all 127.0.0.1/32 reject", both], "require", "disable"),
        (["hostssl all all 127.0.0.1/32 reject", both], "disable", "require"),
    ] {
        let server = files.server("server", &rules).await;
        for mode in [open, "allow", "prefer"] {
            enters(&server, &at(&server, "127.0.0.1", &format!("sslmode={mode}"))).await;
        }
        let url = at(&server, "127.0.0.1", &format!("sslmode={shut}"));
        complains(&url, "pg_hba.conf rejects connection", "pg_hba.conf").await;
    }
}

#[tokio::test]
async fn a_certificate_of_our_own_is_shown_where_the_server_wants_one() {
    let Some(files) = Certificates::make() else { return };
    let ours = format!("sslmode=verify-full&sslrootcert={}", files.path("ca.crt"));
    let with = |certificate: &str, key: &str| {
        format!("{ours}&sslcert={}&sslkey={}", files.path(certificate), files.path(key))
    };
    let pair = with("client.crt", "client.key");
    for rule in [
        "hostssl all postgres 127.0.0.1/32 cert",
        "hostssl all postgres 127.0.0.1/32 scram-sha-256 clientcert=verify-full",
        "hostssl all postgres 127.0.0.1/32 scram-sha-256 clientcert=verify-ca",
    ] {
        let server = files.server("server", &[rule]).await;
        let url = |options: &str| at(&server, "localhost", options);
        enters(&server, &url(&pair)).await;
        complains(&url(&ours), "client certificate", "").await;
        complains(&url(&format!("{pair}&sslcertmode=disable")), "client certificate", "").await;
        if !rule.ends_with("cert") {
            continue;
        }
        for sealed in ["sealed.key", "sealed2.key"] {
            let options = format!("{}&sslpassword=s3cret", with("client.crt", sealed));
            enters(&server, &url(&options)).await;
        }
        let sealed = with("client.crt", "sealed.key");
        complains(&url(&sealed), "no `sslpassword`", "file's name").await;
        let wrong = format!("{sealed}&sslpassword=wrong-s3cret");
        complains(&url(&wrong), "`sslpassword` does not open it", "file's name").await;
        complains(&url(&with("client.crt", "old.key")), "openssl pkcs8", "file's name").await;
        complains(&url(&with("client.crt", "open.key")), "chmod 0600", "file's name").await;
        complains(&url(&with("client.crt", "no.key")), "no.key", "file's name").await;
        let stranger = with("stranger.crt", "stranger.key");
        complains(&url(&stranger), "", "").await;
    }
}
