//! The two ways to write an address, taken apart: `postgres://…`, and `key=value` pairs.
//!
//! Nothing of the text comes back in an error: a password that was not escaped is cut into pieces
//! here, and each of them would be a part of it.

use super::UrlError;

/// Parameters by libpq's names, in the order in which they were written.
pub(super) type Pairs = Vec<(String, String)>;

/// Takes an address apart.
pub(super) fn parameters(text: &str) -> Result<Pairs, UrlError> {
    match text.split_once("://").filter(|(scheme, _)| is_word(scheme)) {
        Some(("postgres" | "postgresql", rest)) => uri(rest),
        Some((scheme, _)) => Err(UrlError::Scheme(scheme.into())),
        None => pairs(text),
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// `[user[:password]@][host[:port],…][/database][?name=value&…]`
fn uri(text: &str) -> Result<Pairs, UrlError> {
    let mut found = Pairs::new();
    let mut push = |name: &str, value: &str| -> Result<(), UrlError> {
        if !value.is_empty() {
            found.push((name.into(), decode(value)?));
        }
        Ok(())
    };
    // A question mark before the `@` belongs to the password, a slash does not.
    let (who, rest) = match text.find(['@', '/']) {
        Some(at) if text.as_bytes()[at] == b'@' => (&text[..at], &text[at + 1..]),
        _ => ("", text),
    };
    let (user, password) = who.split_once(':').unwrap_or((who, ""));
    push("user", user)?;
    push("password", password)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
    if hosts.contains('@') || database.contains('@') {
        return Err(UrlError::Invalid("there is more than one `@`, or one behind a `/`".into()));
    }
    let (hosts, ports) = host_list(hosts)?;
    push("host", &hosts)?;
    if ports.bytes().any(|b| b != b',') {
        push("port", &ports)?;
    }
    push("dbname", database)?;
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| UrlError::Invalid("an option behind the `?` has no `=`".into()))?;
        match (decode(name)?.as_str(), value) {
            // What JDBC calls it.
            ("ssl", "true") => push("sslmode", "require")?,
            (name, value) => push(name, value)?,
        }
    }
    Ok(found)
}

/// `a:1,[::1]:2` as the lists `a,::1` and `1,2`.
fn host_list(text: &str) -> Result<(String, String), UrlError> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for part in text.split(',') {
        let (host, port) = match part.strip_prefix('[') {
            Some(numbered) => {
                let closed = numbered.split_once(']');
                let (host, port) = closed.ok_or_else(|| UrlError::Invalid("an open `[`".into()))?;
                match port.strip_prefix(':') {
                    None if !port.is_empty() => {
                        return Err(UrlError::Invalid("text behind a `]`".into()));
                    }
                    port => (host, port.unwrap_or_default()),
                }
            }
            None => part.split_once(':').unwrap_or((part, "")),
        };
        hosts.push(host);
        ports.push(port);
    }
    Ok((hosts.join(","), ports.join(",")))
}

/// `%XX` as the byte that it stands for; `+` is a plus.
fn decode(text: &str) -> Result<String, UrlError> {
    let bad = || UrlError::Invalid("a `%` is not followed by two hexadecimal digits".into());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
                u8::try_from(high * 16 + low).map_err(|_| bad())?
            }
            byte => byte,
        });
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(UrlError::Invalid("what `%XX` stands for is no text".into())),
    }
}

/// `key = value` pairs: blanks around `=`, quotes, backslashes.
fn pairs(text: &str) -> Result<Pairs, UrlError> {
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, behind) = rest
            .split_once('=')
            .ok_or_else(|| UrlError::Invalid("a name without `=` and a value".into()))?;
        let (value, behind) = value(behind.trim_start())?;
        if !value.is_empty() {
            pairs.push((key.trim().into(), value));
        }
        rest = behind.trim_start();
    }
    Ok(pairs)
}

fn value(text: &str) -> Result<(String, &str), UrlError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\0' => return Err(UrlError::Invalid("a zero byte".into())),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if c.is_whitespace() && !quoted => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    match quoted {
        true => Err(UrlError::Invalid("an open quote".into())),
        false => Ok((value, "")),
    }
}
