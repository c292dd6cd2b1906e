use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Reads an address in an environment.
fn within(variables: &[(&str, &str)], text: &str) -> Result<Url, UrlError> {
    let lookup = |name: &str| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Url::read(text, &lookup)
}

fn read(text: &str) -> Url {
    within(&[], text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> UrlError {
    within(&[], text).expect_err(text)
}

#[test]
fn both_ways_of_writing_an_address_mean_the_same() {
    let url =
        read("postgres://me:s%27cret@db.example:5433/shop?sslmode=verify-ca&sslrootcert=/a%20b");
    let pairs = read(
        r"host=db.example port=5433 user=me password='s\'cret' dbname = shop sslmode=verify-ca sslrootcert='/a b'",
    );
    assert_eq!(url, pairs);
    assert_eq!(url.tls.mode, TlsMode::VerifyCa);
    assert_eq!(url.tls.roots, Some("/a b".into()));
}

#[test]
fn a_secret_is_never_printed() {
    let url =
        read("postgres://me:s3cret@db.example:5433/shop?sslcert=c&sslkey=k&sslpassword=s3cret");
    for text in [url.to_string(), format!("{url:?}"), format!("{:?} {:?}", url.password, url.tls)] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    assert_eq!(url.to_string(), "postgres://me@db.example:5433/shop");
}

#[test]
fn a_password_that_was_not_escaped_is_not_in_the_error_either() {
    for text in [
        "postgres://u:s3cret/s3cret@h/d",
        "postgres://u:s3cret@s3cret@h/d",
        "postgres://u:5432/s3cret@h/d",
        "postgres://u:s3cret%s3cret@h/d",
        "postgres://u:s3cret#/@h/d?s3cret",
        "host=h user=u password=a s3cret",
        "host=h user=u password=a s3cret=x",
        "host=h user=u password='s3cret",
        "host=h user=u port=s3cret",
        "host=h user=u sslmode=s3cret",
    ] {
        let error = error(text);
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{text}: {error}");
    }
}

#[test]
fn what_leaves_the_machine_is_verified_unless_the_address_says_otherwise() {
    let mode = |text| read(text).tls.mode;
    assert_eq!(mode("postgres://u@db.example/d"), TlsMode::VerifyFull);
    assert_eq!(mode("postgres://u@localhost,db.example/d"), TlsMode::VerifyFull);
    assert_eq!(mode("host=localhost hostaddr=192.0.2.1 user=u"), TlsMode::VerifyFull);
    assert_eq!(mode("postgres://u@[::1]/d"), TlsMode::Prefer);
    assert_eq!(mode("postgres://u@127.0.0.1/d"), TlsMode::Prefer);
    assert_eq!(mode("postgres://u@/d"), TlsMode::Prefer);
    assert_eq!(mode("host=/var/run/postgresql user=u"), TlsMode::Prefer);
    assert_eq!(mode("postgres://u@db.example/d?sslmode=require"), TlsMode::Require);
    assert_eq!(mode("postgres://u@db.example/d?ssl=true"), TlsMode::Require);
    assert_eq!(mode("postgres://u@h/d?sslmode=require&sslrootcert=ca"), TlsMode::VerifyCa);
    assert_eq!(mode("postgres://u@localhost/d?sslrootcert=system"), TlsMode::VerifyFull);
}

#[test]
fn hosts_addresses_and_ports_are_lists_side_by_side() {
    let hosts = |text| read(text).hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(hosts("postgres://u@a,b:6000,[::1]:7000/d"), ["a:5432", "b:6000", "[::1]:7000"]);
    assert_eq!(hosts("host=a,b port=6000 user=u"), ["a:6000", "b:6000"]);
    assert_eq!(hosts("hostaddr=10.0.0.1,10.0.0.2 user=u"), ["10.0.0.1:5432", "10.0.0.2:5432"]);
    let socket = "/var/run/postgresql/.s.PGSQL.5432";
    assert_eq!(hosts("postgres://u@%2Fvar%2Frun%2Fpostgresql/d"), [socket]);
    assert_eq!(hosts("postgres://u@/d?host=/var/run/postgresql"), [socket]);
    assert_eq!(hosts("host=@walmill user=u"), ["@walmill/.s.PGSQL.5432"]);
    for text in ["host=a,b port=1,2,3 user=u", "host=a,b hostaddr=10.0.0.1 user=u"] {
        assert!(matches!(error(text), UrlError::Lists(_)), "{text}");
    }
}

#[test]
fn several_hosts_are_a_primary_and_its_standbys_unless_the_address_says_otherwise() {
    let wanted = |text| read(text).wanted;
    assert_eq!(wanted("postgres://u@a/d"), Wanted::Any);
    assert_eq!(wanted("postgres://u@a,b/d"), Wanted::Primary);
    assert_eq!(wanted("postgres://u@a,b/d?target_session_attrs=any"), Wanted::Any);
    assert_eq!(wanted("postgres://u@a/d?target_session_attrs=read-only"), Wanted::Standby);
}

#[test]
fn what_the_address_does_not_say_the_environment_says() {
    let variables = [
        ("PGHOST", "db.example"),
        ("PGPORT", "5433"),
        ("PGUSER", "me"),
        ("PGPASSWORD", "s3cret"),
        ("PGSSLMODE", "require"),
        ("PGAPPNAME", "shop-events"),
        ("PGCONNECT_TIMEOUT", "7"),
    ];
    let url = Url::without_text(&|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
    });
    let url = url.expect("an address");
    assert_eq!(url.to_string(), "postgres://me@db.example:5433/me");
    assert_eq!((url.tls.mode, url.application_name.as_str()), (TlsMode::Require, "shop-events"));
    assert_eq!(url.timeout, Some(Duration::from_secs(7)));
    assert!(url.password_of_environment);

    let url = within(&variables, "postgres://you@localhost/d?connect_timeout=1").expect("one");
    assert_eq!(url.to_string(), "postgres://you@localhost:5433/d");
    assert_eq!(url.timeout, Some(Duration::from_secs(2)));
    assert_eq!(Url::without_text(&|_| None), Err(UrlError::Nothing));
}

#[test]
fn a_service_stands_between_the_address_and_the_environment() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, "[shop]\nhost=a.example\nport=1\nuser=u\n").expect("write");
    let path = file.path().to_str().expect("UTF-8");
    let variables = [("PGSERVICE", "shop"), ("PGSERVICEFILE", path), ("PGHOST", "b.example")];
    let url = within(&variables, "port=2").expect("an address");
    assert_eq!(url.to_string(), "postgres://u@a.example:2/u");
    let error = within(&variables, "service=none").expect_err("no such service");
    assert!(error.to_string().contains(path), "{error}");
}

#[test]
fn how_the_server_may_ask_who_we_are_is_a_list() {
    let allows = |list: &str| {
        let methods = read(&format!("host=h user=u require_auth={list}")).methods;
        [Method::None, Method::Password, Method::Md5, Method::Scram]
            .map(|method| methods.allow(method))
    };
    assert_eq!(allows("scram-sha-256,md5"), [false, false, true, true]);
    assert_eq!(allows("!password,!none"), [false, false, true, true]);
    assert_eq!(read("host=h user=u").methods, Methods::default());
    assert!(matches!(error("host=h user=u require_auth=md5,!none"), UrlError::Lists(_)));
}

#[test]
fn what_is_no_address_says_what_one_looks_like() {
    assert_eq!(error("http://u@h/d"), UrlError::Scheme("http".into()));
    let expected = "disable, allow, prefer, require, verify-ca or verify-full";
    let value = UrlError::Value { parameter: "sslmode", expected };
    assert_eq!(error("postgres://u@h/d?sslmode=on"), value);
    assert_eq!(error("postgres://u@h/d?sslcert=c"), UrlError::HalfCertificate);
    let refused = UrlError::Refused { parameter: "gssencmode", possible: &["disable", "prefer"] };
    assert_eq!(error("postgres://u@h/d?gssencmode=require"), refused);
    assert!(error("postgres://u@h/d?schema=x").to_string().contains("`schema`"));
    assert!(error("host=h usr=u").to_string().contains("did you mean `user`"));
    for text in ["host", "host='a", "postgres://u@[::1/d", "postgres://u%0@h/d"] {
        assert!(matches!(error(text), UrlError::Invalid(_)), "{text}");
    }
    assert!(matches!(error("postgres://u@h:port/d"), UrlError::Value { parameter: "port", .. }));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(postgres://)?.{0,60}") {
        let _ = within(&[], &text);
    }

    #[test]
    fn any_name_and_password_survive_being_escaped(user in ".{1,20}", password in ".{1,20}") {
        prop_assume!(!user.contains('\0') && !password.contains('\0'));
        let escape = |text: &str| -> String {
            text.bytes().map(|byte| format!("%{byte:02X}")).collect()
        };
        let url = read(&format!("postgres://{}:{}@h/d", escape(&user), escape(&password)));
        prop_assert_eq!(url.user(), &user);
        let quote = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let pairs = read(&format!(
            "host=h dbname=d user='{}' password='{}'", quote(&user), quote(&password)
        ));
        prop_assert_eq!(url, pairs);
    }
}
