//! For whom a channel is: whoever its token says, or whoever opened the connection.

use crate::server::Server;
use crate::server::auth::{Access, Reader, Refused};

/// For whom a channel is.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    pub(super) reader: Reader,
    /// What was shown; `None`: what the connection showed counts.
    token: Option<String>,
}

impl Pass {
    /// Looks at the token of a join, or of `access_token`. The error begins with the original's
    /// word for it.
    pub(super) async fn of(
        server: &Server,
        connection: &Reader,
        token: Option<String>,
    ) -> Result<Self, String> {
        let own = || Self { reader: connection.clone(), token: token.clone() };
        let Some(text) = token.as_deref() else {
            return match connection.is_over() {
                true => Err(refused(Refused::Expired)),
                false => Ok(own()),
            };
        };
        match server.gate.identify(text).await {
            Ok(principal) => {
                let remote = connection.remote.clone();
                Ok(Self { reader: Reader { principal, remote }, token })
            }
            // Keys of theirs that are no tokens say nothing beyond what the connection has said.
            Err(Refused::Unknown) if text.starts_with("sb_") && !connection.is_over() => Ok(own()),
            Err(why) => Err(refused(why)),
        }
    }

    /// Whether this token is the one that was shown already.
    pub(super) fn is_by(&self, token: &str) -> bool {
        self.token.as_deref() == Some(token)
    }

    /// What they may do in a private room: it is theirs or not, by the rules for streams, under
    /// the name of its topic.
    pub(super) async fn enter(&self, server: &Server, topic: &str) -> Result<Access, String> {
        let access = self.reader.access(topic, server).await;
        access.map_err(|_| {
            let name = topic.strip_prefix("realtime:").unwrap_or(topic);
            format!(
                "Unauthorized: You do not have permissions to read from this Channel topic: {name}"
            )
        })
    }
}

/// As the original says it.
fn refused(why: Refused) -> String {
    let code = match why {
        Refused::Unknown | Refused::Malformed => "MalformedJWT",
        Refused::Algorithm | Refused::Signature | Refused::UnknownKey => "JwtSignatureError",
        Refused::Expired | Refused::Early | Refused::Claim(_) => "InvalidJWTToken",
        Refused::NoKeys | Refused::Issuer | Refused::Audience => "Unauthorized",
    };
    format!("{code}: {why}")
}
