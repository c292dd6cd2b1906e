//! HTTPS and HTTP/2, as `curl` and other clients speak them.

use std::path::Path;
use std::process::Command;

use reqwest::{Certificate, Client, Version};
use walmill::server::{Config, bind, tls};
use walmill::store;

use crate::support::serving::Serving;

/// A certificate for 127.0.0.1 with this name in it, signed by itself.
fn certify(folder: &Path, name: &str) -> bool {
    let script = format!(
        "printf '[req]\ndistinguished_name=dn\nx509_extensions=v3\n[dn]\n[v3]\n\
         subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n' > req.conf \
         && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
         -keyout new.key -out new.crt -days 2 -subj /CN={name} -config req.conf \
         && mv new.key server.key && mv new.crt server.crt"
    );
    let made = Command::new("sh").args(["-c", &script]).current_dir(folder).output();
    let made = made.is_ok_and(|made| made.status.success());
    if !made {
        eprintln!("skipped: there is no openssl here");
    }
    made
}

fn config(folder: &Path) -> Config {
    let (cert, key) = (folder.join("server.crt"), folder.join("server.key"));
    Config { tls: Some(tls::Config { cert, key }), ..Config::default() }
}

fn client(folder: &Path) -> Client {
    let pem = std::fs::read(folder.join("server.crt")).expect("a certificate");
    let root = Certificate::from_pem(&pem).expect("a certificate");
    Client::builder().tls_certs_only([root]).build().expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_and_one_that_does_not_work_is_not() {
    let folder = crate::support::folder();
    if !certify(folder.path(), "one") {
        return;
    }
    let server = Serving::configured(config(folder.path()), store::Config::default()).await;
    let url = format!("https://{}/livez", server.address);
    let first = client(folder.path());
    let answer = first.get(&url).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    assert!(certify(folder.path(), "two"));
    let second = client(folder.path());
    let renewed = tokio::time::timeout(crate::support::process::PATIENCE, async {
        while second.get(&url).send().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    assert!(renewed.await.is_ok(), "the new certificate never came");
    std::fs::write(folder.path().join("server.crt"), "nonsense").expect("write");
    // It looks once a second, and must have looked by then.
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    let fresh = Client::builder().danger_accept_invalid_certs(true).build().expect("a client");
    assert_eq!(fresh.get(&url).send().await.expect("the old one").status(), 200);
    let plain = reqwest::get(server.url("/livez")).await;
    assert!(plain.is_err(), "plain HTTP is not spoken where there is TLS");
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_is_an_error_before_anything_starts() {
    let folder = crate::support::folder();
    if !certify(folder.path(), "one") {
        return;
    }
    let key = std::fs::read(folder.path().join("server.key")).expect("a key");
    assert!(certify(folder.path(), "two"));
    std::fs::write(folder.path().join("server.key"), key).expect("write");
    let wrong = Config { listen: ([127, 0, 0, 1], 0).into(), ..config(folder.path()) };
    let error = anyhow::Error::new(bind(&wrong).await.expect_err("no match"));
    assert!(format!("{error:#}").contains("do not fit"), "{error:#}");
    std::fs::remove_file(folder.path().join("server.key")).expect("remove");
    let error = anyhow::Error::new(bind(&wrong).await.expect_err("no key"));
    assert!(format!("{error:#}").contains("server.key"), "{error:#}");
}

/// What `curl` says, if there is one.
async fn curl(arguments: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new("curl");
    let output = command.args(["-sS", "--max-time", "60"]).args(arguments).output().await.ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_reads_streams_over_every_version_of_http() {
    let server = Serving::start().await;
    server.commit("posts", 2);
    let page = server.url("/v1/streams/posts/events");
    let format = "%{stdout}\n%{http_version} %{http_code}";
    for (version, spoken) in
        [("--http1.1", "1.1"), ("--http2", "1.1"), ("--http2-prior-knowledge", "2")]
    {
        let Some(said) = curl(&[version, "-w", format, &page]).await else {
            return eprintln!("skipped: there is no curl here");
        };
        assert!(said.contains("\"events\":[{"), "{version}: {said}");
        assert!(said.ends_with(&format!("{spoken} 200")), "{version}: {said}");
    }
    let sse = server.url("/v1/streams/posts/sse?last_event_id=earliest");
    let brief = curl(&["-N", "--http1.1", "--max-time", "2", &sse]).await.unwrap_or_default();
    assert_eq!(brief.matches("\nid: ").count(), 2, "{brief}");
    // Over HTTP/2 to the end, which a shutdown brings.
    let ends = async {
        let sse = walmill::metrics::Name { name: "sse".into() };
        let sent = || server.metrics.client_events.get_or_create(&sse).get();
        crate::support::until("curl reads", || sent() >= 4).await;
        server.shutdown.cancel();
    };
    let arguments = ["-N", "--http2-prior-knowledge", sse.as_str()];
    let (said, ()) = tokio::join!(curl(&arguments), ends);
    let said = said.unwrap_or_default();
    assert_eq!(said.matches("\nid: ").count(), 2, "{said}");
    assert!(said.contains("event: closing"), "{said}");
}
