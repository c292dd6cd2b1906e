//! Asks the running walmill that a config is about, over its admin API.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::Serialize;
use serde_json::Value;

use super::Failure;
use crate::config::Config;
use crate::config::finding::Finding;

/// walmill answers at once, or once the database has, or not at all.
const PATIENCE: Duration = Duration::from_secs(40);
/// A plugin may take minutes to compile, and to be tried.
const LONG_PATIENCE: Duration = Duration::from_secs(300);

/// The variable of the environment that a person's key or JWT is in.
const TOKEN: &str = "WALMILL_TOKEN";

/// The walmill at `server.listen`.
pub(super) struct Client {
    base: Url,
    http: reqwest::Client,
    token: Option<String>,
}

impl Client {
    /// Where the config says that it listens, with what it asks for.
    pub(super) fn new(config: &Config) -> Result<Self, Failure> {
        let base = format!("http://{}/", reachable(config.server.listen));
        // It is on this machine or in the same network; a proxy would send the token elsewhere.
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| Failure::run_time(Finding::error("client", "", chain(error))))?;
        let base = Url::parse(&base).map_err(|error| {
            Failure::usage(vec![Finding::error("client", "server.listen", error.to_string())])
        })?;
        Ok(Self { base, http, token: token(config) })
    }

    /// Asks how things are; the parts are put into the address, however they are written.
    pub(super) async fn get(&self, parts: &[&str]) -> Result<Value, Failure> {
        self.send(self.request(Method::GET, parts, &[])).await
    }

    /// Asks for those of many things that fit.
    pub(super) async fn get_with(
        &self,
        parts: &[&str],
        parameters: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        self.send(self.request(Method::GET, parts, parameters)).await
    }

    /// Asks for a change.
    pub(super) async fn post(
        &self,
        parts: &[&str],
        parameters: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        self.send(self.request(Method::POST, parts, parameters)).await
    }

    /// Asks for a change that a body describes.
    pub(super) async fn post_body(
        &self,
        parts: &[&str],
        body: &impl Serialize,
    ) -> Result<Value, Failure> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Failure::run_time(Finding::error("client", "", error.to_string())))?;
        let request = self.request(Method::POST, parts, &[]).body(body);
        self.send(request.header(CONTENT_TYPE, "application/json")).await
    }

    /// Sends a plugin's file. It is compiled and tried before there is an answer.
    pub(super) async fn put_file(&self, parts: &[&str], file: Vec<u8>) -> Result<Value, Failure> {
        let request = self.request(Method::PUT, parts, &[]).body(file).timeout(LONG_PATIENCE);
        self.send(request.header(CONTENT_TYPE, "application/wasm")).await
    }

    /// Has something tried, with a file or without. That may take its time, too.
    pub(super) async fn try_out(
        &self,
        parts: &[&str],
        parameters: &[(&str, &str)],
        file: Option<Vec<u8>>,
    ) -> Result<Value, Failure> {
        let request = self.request(Method::POST, parts, parameters).timeout(LONG_PATIENCE);
        self.send(match file {
            Some(file) => request.body(file).header(CONTENT_TYPE, "application/wasm"),
            None => request.body("{}").header(CONTENT_TYPE, "application/json"),
        })
        .await
    }

    /// Fetches a file.
    pub(super) async fn get_file(
        &self,
        parts: &[&str],
        parameters: &[(&str, &str)],
    ) -> Result<Vec<u8>, Failure> {
        let (status, body) = self.ask(self.request(Method::GET, parts, parameters)).await?;
        if status.is_success() { Ok(body) } else { Err(refused(status, &body)) }
    }

    fn request(
        &self,
        method: Method,
        parts: &[&str],
        parameters: &[(&str, &str)],
    ) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let (status, body) = self.ask(request).await?;
        match status.is_success() {
            true => Ok(serde_json::from_slice(&body).unwrap_or_default()),
            false => Err(refused(status, &body)),
        }
    }

    async fn ask(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), Failure> {
        let response = request.send().await.map_err(|error| self.away(error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.away(error))?;
        Ok((status, body.into()))
    }

    fn away(&self, error: reqwest::Error) -> Failure {
        let message = format!("walmill does not answer at {}: {}", self.base, chain(error));
        Failure::environment(
            Finding::error("not-running", "server.listen", message)
                .suggest("start it with `walmill run`, or name its config with `--config`"),
        )
    }
}

/// A person's own key or JWT, where the environment has one: the config has only the digests of
/// keys. Otherwise the config's token.
fn token(config: &Config) -> Option<String> {
    let own = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
    own.or_else(|| config.server.token.as_ref().map(|token| token.reveal().to_owned()))
}

/// What walmill says against it.
fn refused(status: StatusCode, body: &[u8]) -> Failure {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    let message = text("message").unwrap_or_else(|| format!("walmill answered {status}"));
    let finding = Finding::error("refused", text("path").unwrap_or_default(), message);
    Failure::run_time(Finding { suggestion: text("suggestion"), ..finding })
}

/// An address that stands for every one of this machine cannot be connected to everywhere.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn chain(error: reqwest::Error) -> String {
    format!("{:#}", anyhow::Error::from(error.without_url()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_address_is_reached_on_this_machine() {
        let reached = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:4000"), "127.0.0.1:4000");
        assert_eq!(reached("[::]:4000"), "[::1]:4000");
        assert_eq!(reached("10.0.0.7:4000"), "10.0.0.7:4000");
    }
}
