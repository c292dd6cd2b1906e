//! The password file (PostgreSQL docs, "The Password File"): lines of
//! `host:port:database:user:password`, where `*` fits everything.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What a password is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    /// By any of these names.
    pub(super) hosts: &'a [&'a str],
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// A password, and the line that it is in.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) password: String,
    pub(super) line: usize,
}

/// The first password in the file that fits. It is read anew for each login, so that a changed
/// password needs no restart. A file that others can read is not used.
pub(super) fn look_up(file: &Path, wanted: &Entry<'_>) -> Option<Found> {
    // A file that is not there is one of the usual cases.
    let about = fs::metadata(file).ok()?;
    if !about.is_file() {
        tracing::warn!("password file {} is no plain file, and is not used", file.display());
        return None;
    }
    if about.permissions().mode() & 0o077 != 0 {
        tracing::warn!(
            "password file {0} can be read by others, and is not used: run `chmod 0600 {0}`",
            file.display()
        );
        return None;
    }
    match fs::read(file) {
        Ok(bytes) => find(&String::from_utf8_lossy(&bytes), wanted),
        Err(error) => {
            tracing::warn!("password file {} is not used: {error}", file.display());
            None
        }
    }
}

fn find(text: &str, wanted: &Entry<'_>) -> Option<Found> {
    let port = wanted.port.to_string();
    (1..).zip(text.lines()).find_map(|(line, fields)| {
        if fields.starts_with('#') {
            return None;
        }
        let (host, rest) = field(fields)?;
        let ((number, rest), host) = (field(rest)?, host);
        let (database, rest) = field(rest)?;
        let (user, password) = field(rest)?;
        let fits = |field: &str, value: &str| field == "*" || unescape(field) == value;
        let fit = wanted.hosts.iter().any(|name| fits(host, name))
            && fits(number, &port)
            && fits(database, wanted.database)
            && fits(user, wanted.user);
        // Behind the password's own end there is nothing that counts.
        let password = field(password).map_or(password, |(password, _)| password);
        fit.then(|| Found { password: unescape(password), line })
    })
}

/// What is before the first colon that no backslash protects, and what is behind it.
fn field(text: &str) -> Option<(&str, &str)> {
    let mut protected = false;
    let end = text.bytes().position(|byte| {
        let end = byte == b':' && !protected;
        protected = byte == b'\\' && !protected;
        end
    })?;
    Some((&text[..end], &text[end + 1..]))
}

fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WANTED: Entry<'_> =
        Entry { hosts: &["db.example"], port: 5432, database: "shop", user: "me" };

    fn password(text: &str) -> Option<String> {
        find(text, &WANTED).map(|found| found.password)
    }

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let file = "# db.example:5432:shop:me:comment\n\
                    \n\
                    db.example:5433:shop:me:port\n\
                    db.example:5432:shop:you:user\n\
                    nonsense\n\
                    *:*:*:me:here\r\n\
                    db.example:5432:shop:me:late\n";
        let found = find(file, &WANTED).expect("a password");
        assert_eq!((found.password.as_str(), found.line), ("here", 6));
        assert_eq!(password("localhost:5432:shop:me:x"), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        assert_eq!(password(r"db.example:*:*:*:a\:b\\c\d").as_deref(), Some(r"a:b\cd"));
        assert_eq!(password(r"\db.example:*:sh\op:*:p").as_deref(), Some("p"));
        assert_eq!(password(r"db.example\:*:*:*:p"), None);
        assert_eq!(password("*:*:*:*:p:rest").as_deref(), Some("p"));
    }

    #[test]
    fn a_socket_goes_by_its_folder_and_by_localhost() {
        let wanted = Entry { hosts: &["/run/pg", "localhost"], ..WANTED };
        for host in ["/run/pg", "localhost", "*"] {
            assert!(find(&format!("{host}:5432:shop:me:p"), &wanted).is_some(), "{host}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pass");
        fs::write(&file, "*:*:*:*:p").expect("write");
        let look_up = |mode| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("chmod");
            look_up(&file, &WANTED).map(|found| found.password)
        };
        assert_eq!(look_up(0o600).as_deref(), Some("p"));
        assert_eq!((look_up(0o640), look_up(0o604)), (None, None));
        assert!(super::look_up(folder.path(), &WANTED).is_none());
        assert!(super::look_up(&folder.path().join("none"), &WANTED).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_a_password_file(text in "(.{0,20}:){0,6}.{0,20}\n.{0,20}") {
            let _ = find(&text, &WANTED);
        }

        #[test]
        fn any_password_survives_being_escaped(password in "[^\r\n]{0,30}") {
            let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
            let found = find(&format!("*:*:*:*:{escaped}"), &WANTED);
            prop_assert_eq!(found.map(|found| found.password), Some(password));
        }
    }
}
