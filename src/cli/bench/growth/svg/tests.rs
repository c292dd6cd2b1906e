//! What holds for every plot.

use proptest::prelude::*;

use super::*;

fn plot(title: &str, points: Vec<(f64, f64)>) -> String {
    Plot { title, x: "size, bytes", y: "cost, µs", points }.to_string()
}

/// The value of each attribute of this name.
fn numbers(svg: &str, attribute: &str) -> Vec<f64> {
    let begin = format!(r#" {attribute}=""#);
    let values = svg.split(begin.as_str()).skip(1).filter_map(|rest| rest.split('"').next());
    values.map(|value| value.parse().expect("a number")).collect()
}

/// Every tag that is opened is closed, in turn; every attribute has quotes; text has no stray `<`.
fn check_well_formed(svg: &str) {
    let mut open = Vec::new();
    let mut rest = svg;
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "a stray > before {}", &rest[at..]);
        let end = at + rest[at..].find('>').expect("a tag ends");
        let tag = &rest[at + 1..end];
        assert!(tag.matches('"').count().is_multiple_of(2) && !tag.contains('<'), "{tag}");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{svg}"),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().expect("a name")),
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty() && rest == "\n", "{open:?} {rest}");
    for reference in svg.split('&').skip(1) {
        assert!(["lt;", "gt;", "amp;", "quot;"].iter().any(|name| reference.starts_with(name)));
    }
}

proptest! {
    #[test]
    fn every_point_is_in_the_frame_and_the_xml_is_well_formed(
        title in "[ -~]{0,20}",
        points in prop::collection::vec((0.0..1e12_f64, prop_oneof![0.0..1e9_f64, 1e-6..1e-3_f64]), 0..20),
    ) {
        let svg = plot(&title, points.clone());
        check_well_formed(&svg);
        let (x, y) = (numbers(&svg, "cx"), numbers(&svg, "cy"));
        prop_assert_eq!((x.len(), y.len()), (points.len(), points.len()));
        prop_assert!(x.iter().all(|x| (LEFT..=RIGHT).contains(x)), "{}", svg);
        prop_assert!(y.iter().all(|y| (TOP..=BOTTOM).contains(y)), "{}", svg);
    }
}

#[test]
fn a_large_range_is_logarithmic_and_says_so() {
    let svg = plot("growth", vec![(10.0, 1.0), (1_000.0, 2.0), (100_000.0, 3.0)]);
    assert!(svg.contains("size, bytes (logarithmic)<") && svg.contains("cost, µs<"), "{svg}");
    // Equal factors are equal distances.
    assert_eq!(numbers(&svg, "cx"), [LEFT, f64::midpoint(LEFT, RIGHT), RIGHT]);
    for mark in ["10", "100", "1,000", "10,000", "100,000"] {
        assert!(svg.contains(&format!(">{mark}</text>")), "{mark}: {svg}");
    }
}

#[test]
fn a_small_range_begins_at_zero() {
    let svg = plot("plugins", vec![(0.0, 2.0), (16.0, 10.0)]);
    assert!(!svg.contains("logarithmic"));
    assert_eq!(numbers(&svg, "cx"), [LEFT, LEFT + (RIGHT - LEFT) * 0.8]);
    assert_eq!(numbers(&svg, "cy")[1], TOP);
}
