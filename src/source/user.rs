//! Who runs this process, as the system's list of users has it.

use super::url::Lookup;

const USERS: &str = "/etc/passwd";

/// The name of who we are.
pub(super) fn current(lookup: Lookup<'_>) -> Option<String> {
    let users = std::fs::read_to_string(USERS).unwrap_or_default();
    let own = rustix::process::geteuid().as_raw();
    name_of(&users, own).or_else(|| lookup("USER")).or_else(|| lookup("LOGNAME"))
}

/// Whether that number is that user's.
pub(super) fn is(number: u32, name: &str) -> bool {
    let users = std::fs::read_to_string(USERS).unwrap_or_default();
    name_of(&users, number).is_some_and(|found| found == name)
}

/// `name:password:number:…`
fn name_of(users: &str, number: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, own) = (fields.next()?, fields.nth(1)?);
        (own.parse() == Ok(number)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_the_name_of_the_first_line_with_it() {
        let users = "root:x:0:0:root:/:/bin/sh\n+\nbroken\nus:x:1000:1000::/:/bin/sh\n";
        assert_eq!(name_of(users, 1000).as_deref(), Some("us"));
        assert_eq!(name_of(users, 1), None);
    }
}
