//! The house stays as it was drawn: a module imports from the rows below its own, and the arrows
//! that are there are a snapshot, so that a new one is a line in a review.
//!
//! `UPDATE_EXPECT=1 cargo nextest run layers` writes the snapshot anew.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect;

use crate::tidy::{SourceFile, sources};

/// From the top to the floor. Modules in one row do not know each other, but for [`ACROSS`].
const ROWS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app"],
    &["config"],
    &["server"],
    &["source", "pipeline", "output"],
    &["pgoutput", "plugin", "store"],
    &["model", "metrics", "task", "cluster", "mutation"],
];

/// Arrows between rooms that are meant: what else crosses from a stage to another's engine is not.
/// (The stages' own arrows down to their engines are listed too, so that a webhook that imports
/// WebAssembly is noticed.)
const ACROSS: &[(&str, &[&str])] = &[
    ("source", &["store", "pgoutput"]),
    ("pipeline", &["store", "plugin", "pgoutput"]),
    ("output", &["store"]),
    ("server", &["store"]),
];

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// What is wrong with an arrow.
fn fault(from: &str, to: &str) -> Option<String> {
    let (Some(above), Some(below)) = (row(from), row(to)) else {
        let stranger = if row(from).is_none() { from } else { to };
        return Some(format!("{from} → {to}: {stranger} has no row; give it one in layers.rs"));
    };
    let floor = row("metrics").expect("a row");
    let across = ACROSS.iter().find(|(module, _)| *module == from);
    match across {
        _ if below <= above => Some(format!("{from} → {to} leads up, or to a neighbour")),
        Some((_, engines)) if below < floor && !engines.contains(&to) => {
            Some(format!("{from} → {to}: another room"))
        }
        _ => None,
    }
}

/// Which module imports which, by the paths that begin with `crate::` (in `main`, `walmill::`).
/// Tests beside the code may look anywhere.
fn arrows(files: &[SourceFile]) -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.is_test()) {
        let from = file.module();
        let to = arrows.entry(from.to_owned()).or_default();
        let code = without_comments(file.code());
        to.extend(roots(file).iter().flat_map(|root| heads(&code, root)));
        to.remove(from);
    }
    arrows.remove("lib");
    arrows
}

/// What the paths to other modules begin with.
fn roots(file: &SourceFile) -> &'static [&'static str] {
    match file.path.components().count() {
        _ if file.module() == "main" => &["walmill::"],
        2 => &["crate::", "super::"],
        _ => &["crate::"],
    }
}

fn without_comments<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join(" ")
}

/// The modules named in code: `crate::a::b` and, in a `use`, `crate::{a, b::c}`.
fn heads(code: &str, root: &str) -> Vec<String> {
    let behind = code.split(root).skip(1);
    behind
        .flat_map(|path| match path.strip_prefix('{') {
            Some(list) => group(list),
            None => vec![name(path)],
        })
        .collect()
}

/// The first names of a braced list.
fn group(list: &str) -> Vec<String> {
    let (mut depth, mut item, mut items) = (0, String::new(), Vec::new());
    for letter in list.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(name(std::mem::take(&mut item).trim())),
            _ if depth == 0 => item.push(letter),
            _ => {}
        }
    }
    items.push(name(item.trim()));
    items
}

fn name(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn is_module(files: &[SourceFile], name: &str) -> bool {
    files.iter().any(|file| file.module() == name)
}

#[test]
fn imports_go_down_and_rooms_keep_to_themselves() {
    let files = sources();
    let mut drawn = String::new();
    let mut faults = Vec::new();
    for (from, to) in arrows(&files) {
        // `crate::VERSION` and the like are items of lib.rs.
        let to: Vec<_> = to.into_iter().filter(|to| is_module(&files, to)).collect();
        faults.extend(to.iter().filter_map(|to| fault(&from, to)));
        drawn.push_str(format!("{from} → {}", to.join(" ")).trim_end());
        drawn.push('\n');
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    expect![[r#"
        app → config metrics model output pipeline plugin server source store task
        cli → app cluster config metrics model pipeline plugin server source store
        cluster →
        config → model output pipeline plugin server source store
        main → cli
        metrics →
        model →
        mutation →
        output → metrics model mutation store
        pgoutput → model
        pipeline → metrics model pgoutput plugin store
        plugin → metrics model
        server → metrics model store
        source → metrics model mutation pgoutput store
        store → metrics model mutation
        task →
    "#]]
    .assert_eq(&drawn);
}

#[test]
fn an_arrow_up_or_into_another_room_is_a_fault() {
    for (from, to) in [
        ("store", "pipeline"),
        ("source", "pipeline"),
        ("output", "plugin"),
        ("server", "output"),
        ("model", "metrics"),
        ("plugin", "store"),
        ("store", "attic"),
    ] {
        assert!(fault(from, to).is_some(), "{from} → {to}");
    }
    for (from, to) in [("app", "source"), ("output", "store"), ("plugin", "model")] {
        assert_eq!(fault(from, to), None);
    }
}

#[test]
fn paths_are_found_in_uses_and_in_code() {
    let code = "use crate::{\n    model::{Lsn, Offset},\n    store, task::Tasks,\n};\n\
                // crate::no\nlet x = crate::metrics::x();";
    let code = without_comments(code.lines());
    assert_eq!(heads(&code, "crate::"), ["model", "store", "task", "", "metrics"]);
}
