use std::hash::Hasher;

use super::*;

fn condition(text: &str) -> Condition {
    let filter = Filter::read([text], "filter").expect(text);
    filter.groups[0].conditions[0].clone()
}

#[test]
fn values_are_compared_by_what_they_are() {
    let cases = [
        // Numbers keep every digit, and their spelling does not matter.
        ("a=eq.9007199254740993", "9007199254740993", true),
        ("a=eq.9007199254740992", "9007199254740993", false),
        ("a=lt.9007199254740993", "9007199254740992", true),
        ("a=eq.1", "1.00", true),
        ("a=eq.100", "1e2", true),
        ("a=eq.0", "-0.0", true),
        ("a=gt.0.1", "0.10000000000000000000001", true),
        ("a=lt.-1", "-1.5", true),
        ("a=gt.9", "10", true),
        ("a=lte.1e-100", "1e-101", true),
        ("a=gt.5", "\"Infinity\"", true),
        ("a=gt.5", "\"-Infinity\"", false),
        ("a=eq.abc", "5", false),
        ("a=neq.abc", "5", false),
        // Points in time, whatever their offset and precision.
        ("a=eq.2026-11-24T03:07:13Z", "\"2026-11-24T03:07:13.000Z\"", true),
        ("a=eq.2026-11-24 04:07:13+01", "\"2026-11-24T03:07:13Z\"", true),
        ("a=gt.2026-11-24", "\"2026-11-24T03:07:13\"", true),
        ("a=lt.2026-11-24", "\"infinity\"", false),
        ("a=gte.9999-12-31", "\"10000-01-01T00:00:00Z\"", true),
        // Everything else as text.
        ("a=eq.NZ", "\"NZ\"", true),
        ("a=eq.nz", "\"NZ\"", false),
        ("a=gt.a", "\"b\"", true),
        ("a=eq.10", "\"10\"", true),
        ("a=eq.10", "\"10.0\"", false),
        (r#"a=eq."x,\"y\"""#, r#""x,\"y\"""#, true),
        ("a=eq.é", r#""\u00e9""#, true),
        ("a=eq.", "\"\"", true),
        ("a=eq.true", "true", true),
        ("a=eq.f", "false", true),
        ("a=neq.true", "false", true),
        ("a=in.(1,2,\"c,d\")", "2.0", true),
        ("a=in.(1,2,\"c,d\")", "\"c,d\"", true),
        ("a=in.(1,2)", "3", false),
        ("a=not.in.(1,2)", "3", true),
        ("a=like.N%", "\"NZ\"", true),
        ("a=like.%b_d%", "\"aabéd!\"", true),
        ("a=like.a\\%", "\"ab\"", false),
        ("a=like.a\\%", "\"a%\"", true),
        ("a=like.%aab", "\"aaaab\"", true),
        ("a=like.%a_b", "\"xaéb\"", true),
        ("a=like.ab%ba", "\"aba\"", false),
        ("a=like.a%b%c", "\"a-c-b-c\"", true),
        ("a=like.%b_d%b_%", "\"abcdbcd\"", true),
        ("a=like._%_", "\"x\"", false),
        ("a=like.", "\"x\"", false),
        ("a=is.null", "null", true),
        ("a=not.is.null", "5", true),
        ("a=is.true", "true", true),
    ];
    for (text, json, holds) in cases {
        assert_eq!(condition(text).holds(Some(json.as_bytes())), holds, "{text} {json}");
    }
}

#[test]
fn what_is_not_known_neither_holds_nor_does_its_opposite() {
    for text in ["a=eq.1", "a=neq.1", "a=not.eq.1", "a=in.(1)", "a=not.in.(1)", "a=not.like.x"] {
        assert!(!condition(text).holds(Some(b"null")), "{text}");
        assert!(!condition(text).holds(None), "{text}");
    }
    assert!(!condition("a=is.null").holds(None));
    assert!(!condition("a=not.is.null").holds(None));
}

#[test]
fn what_cannot_be_read_says_why() {
    let error = |text: &str| Filter::read([text], "filter").unwrap_err();
    for (text, words) in [
        ("", "begins with a column's name"),
        ("a", "it ends where `=` comes"),
        ("a=", "`` is no operator"),
        ("a=eq", "it ends where `.` comes"),
        ("a=eql.1", "`eql` is no operator"),
        ("=eq.1", "begins with a column's name"),
        ("a=eq.1,", "begins with a column's name"),
        ("a=eq.\"x", "a quote is open"),
        ("a=eq.\"x\"y", "`,` comes before `y`"),
        ("a=in.1", "`(` comes before `1`"),
        ("a=in.(1", "it ends where `,` comes"),
        ("a=is.nil", "not `nil`"),
        ("\u{0}", "it ends where `=` comes"),
    ] {
        let finding = error(text);
        assert_eq!(finding.code, "bad-filter");
        assert!(finding.message.contains(words), "{text}: {}", finding.message);
    }
    let help = error("a=eql.1").suggestion.unwrap();
    assert!(help.contains("did you mean `eq"), "{help}");
    let many = vec!["a=eq.1"; MAX_GROUPS + 1];
    assert!(Filter::read(many, "filter").is_err());
    assert!(Filter::read([format!("a=eq.{}", "x".repeat(MAX_TEXT)).as_str()], "filter").is_err());
    let list = format!("a=in.({}1)", "1,".repeat(MAX_VALUES));
    assert!(error(&list).message.contains("at most 1000 values"));
}

#[test]
fn a_columns_name_may_be_anything_in_quotes() {
    assert_eq!(condition(r#""a=b,\"c\""=eq.1"#).label(), br#""a=b,\"c\"""#);
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_filter_or_a_finding(text: String) {
        let _ = Filter::read([text.as_str()], "filter");
    }

    #[test]
    fn integers_compare_as_integers(a: i64, b: i64) {
        let filter = condition(&format!("a=lt.{b}"));
        proptest::prop_assert_eq!(filter.holds(Some(a.to_string().as_bytes())), a < b);
    }

    #[test]
    fn what_compares_as_equal_hashes_the_same(a in -1000_i64..1000, zeros in 0_usize..5) {
        let (plain, long) = (a.to_string(), format!("{a}.{}", "0".repeat(zeros + 1)));
        let mut found = Vec::new();
        hash_value(long.as_bytes(), &mut |hash| found.push(finish(hash)));
        proptest::prop_assert!(found.iter().any(|hash| hashes(&Literal::new(&plain)).contains(hash)));
    }
}

fn finish(hash: &dyn Fn(&mut dyn Hasher)) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hash(&mut hasher);
    hasher.finish()
}

fn hashes(literal: &Literal) -> Vec<u64> {
    let mut found = Vec::new();
    literal.hashes(&mut |hash| found.push(finish(hash)));
    found
}
