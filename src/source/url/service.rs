//! The connection service file: parameters under a name (PostgreSQL docs, "The Connection Service
//! File").

use std::path::{Path, PathBuf};

use super::keyword;
use super::text::Pairs;
use super::{Lookup, UrlError};

/// The parameters of a service: from `file`, the user's own file, or the system's.
pub(super) fn parameters(
    service: &str,
    file: Option<&str>,
    lookup: Lookup<'_>,
) -> Result<Pairs, UrlError> {
    let bad = |why: String| UrlError::Service { service: service.into(), why };
    let files: Vec<PathBuf> = match file {
        Some(file) => vec![file.into()],
        None => [
            lookup("HOME").map(|home| Path::new(&home).join(".pg_service.conf")),
            lookup("PGSYSCONFDIR").map(|folder| Path::new(&folder).join("pg_service.conf")),
        ]
        .into_iter()
        .flatten()
        .chain([PathBuf::from("/etc/postgresql-common/pg_service.conf")])
        .collect(),
    };
    for path in &files {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if file.is_some() => {
                return Err(bad(format!("read {}: {error}", path.display())));
            }
            Err(_) => continue,
        };
        if let Some(pairs) = section(&text, service)
            .map_err(|line| bad(format!("line {line} of {} is no `name=value`", path.display())))?
        {
            return Ok(pairs);
        }
    }
    let looked: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    Err(bad(format!("it is not in {}", looked.join(" or "))))
}

/// What is under `[name]`; `None` where there is no such section, and the line that is none.
fn section(text: &str, name: &str) -> Result<Option<Pairs>, usize> {
    let mut found: Option<Pairs> = None;
    let mut inside = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            if inside {
                break;
            }
            inside = title == name;
            if inside {
                found = Some(Pairs::new());
            }
        } else if inside {
            let (key, value) = line.split_once('=').ok_or(number)?;
            let (key, value) = (key.trim(), value.trim());
            if keyword::find(key).is_none() || key == "service" {
                return Err(number);
            }
            found.get_or_insert_default().push((key.into(), value.into()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_service_is_the_lines_below_its_name() {
        let text = "# all of them\n[a]\nhost=one\n\n[b]\nhost = two\nport=1\n[c]\nnonsense";
        let read = |name| section(text, name);
        let b = vec![("host".into(), "two".into()), ("port".into(), "1".into())];
        assert_eq!(read("b"), Ok(Some(b)));
        assert_eq!(read("d"), Ok(None));
        assert_eq!(read("c"), Err(9));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\[a\\]\n)?.{0,40}\n.{0,40}") {
            let _ = section(&text, "a");
        }
    }
}
