//! Whether somebody on the way can read or change what is sent.

use super::Place;
use super::advice::Advice;
use super::code::Code;
use crate::source::url::{TlsMode, Url};

pub(super) fn check(url: &Url, place: &Place, secured: bool) -> Option<Advice> {
    if !place.is_remote() {
        return None;
    }
    let verified = matches!(url.tls.mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
    match (secured, verified) {
        (true, true) => None,
        (true, false) => Some(
            Advice::warning(
                Code::TlsUnverified,
                "source.url",
                "the server's certificate is not checked: whoever is in between can be the server",
            )
            .suggest(
                "take `sslmode` out of `source.url`, and name the authority: `sslrootcert=FILE`",
            ),
        ),
        (false, _) => Some(
            Advice::warning(
                Code::TlsOff,
                "source.url",
                "rows and the login cross the network in clear",
            )
            .suggest(
                "ALTER SYSTEM SET ssl = on; -- with server.crt and server.key in the data \
                      folder, then a reload, and no `sslmode` in `source.url`",
            ),
        ),
    }
}
