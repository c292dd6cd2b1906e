use proptest::collection::vec;
use proptest::prelude::*;

use super::super::bindings::Mode;
use super::super::guests::relation;
use super::*;

fn shape(sources: &[Source]) -> Shape {
    let column = |(at, source): (usize, &Source)| OutColumn {
        name: format!("c{at}"),
        source: source.clone(),
    };
    Shape { table: None, columns: sources.iter().enumerate().map(column).collect() }
}

/// One shape: an input, a computed text, a computed integer, a constant.
fn plan() -> Plan {
    Plan {
        mode: Mode::Call,
        needs: vec![1, 0],
        old: false,
        envelope: false,
        shapes: vec![shape(&[
            Source::Input(0),
            Source::Computed(16),
            Source::Computed(2),
            Source::Fixed("x".into()),
        ])],
        pass_shape: None,
    }
}

/// Pass, emit two rows, drop, reject.
fn outcome() -> Outcome {
    Outcome {
        verdicts: vec![PASS, EMIT, DROP, REJECT],
        event_routes: vec![0, 1, 0, 0],
        row_events: vec![1, 1],
        row_shapes: vec![0, 0],
        row_routes: vec![1, 2],
        starts: vec![0, 2, 4],
        tags: vec![16, 2, 0, 32],
        data: vec![(1 << 32) | 2, 7, 0, 0],
        heap: b"-hi".into(),
        routes: vec!["a".into(), "b".into()],
        reasons: vec!["no".into()],
    }
}

const BOUNDS: Bounds<'static> =
    Bounds { plugin: "guest", event: ByteSize::new(16 << 20), call: ByteSize::new(64 << 20) };

fn check(outcome: &Outcome, plan: &Plan) -> Result<(), Fault> {
    let shapes = Shapes::of(plan);
    check_outcome(outcome, 4, BOUNDS, |_| Some(&shapes))
}

#[test]
fn a_whole_answer_is_believed() {
    assert_eq!(check_plan(&plan(), &relation(1)), Ok(()));
    assert_eq!(check(&outcome(), &plan()), Ok(()));
    let nothing = Outcome {
        verdicts: vec![],
        event_routes: vec![],
        row_events: vec![],
        row_shapes: vec![],
        row_routes: vec![],
        starts: vec![],
        tags: vec![],
        data: vec![],
        heap: vec![],
        routes: vec![],
        reasons: vec![],
    };
    assert_eq!(check_outcome(&nothing, 0, BOUNDS, |_| None), Ok(()));
}

#[test]
fn a_plan_that_does_not_fit_says_where() {
    type Change = fn(&mut Plan);
    let cases: &[(Change, &str)] = &[
        (|p| p.needs = vec![2], "`needs` has column 2 of 2"),
        (|p| p.needs = vec![0, 0], "`needs` has column 0 twice"),
        (|p| p.pass_shape = Some(1), "`pass-shape` is 1 of 1"),
        (|p| p.pass_shape = Some(0), "`pass-shape` is 0, which has a computed column"),
        (|p| p.shapes = vec![plan().shapes[0].clone(); 257], "257 shapes, more than 256"),
        (
            |p| p.shapes[0].columns[0].source = Source::Input(2),
            "shape 0: column \"c0\" is input 2 of 2",
        ),
        (
            |p| p.shapes[0].columns[1].source = Source::Computed(0),
            "shape 0: column \"c1\" is computed with tag 0, which is no type",
        ),
        (
            |p| p.shapes[0].columns[1].source = Source::Computed(32),
            "shape 0: column \"c1\" is computed with tag 32, which is no type",
        ),
        (|p| p.shapes[0].columns[1].name = "c0".into(), "shape 0: column \"c0\" twice"),
        (|p| p.shapes[0].columns[0].name.clear(), "shape 0: column without a name"),
        (|p| p.shapes[0].table = Some(String::new()), "shape 0: table without a name"),
        (
            |p| p.shapes[0].columns[0].name = "a\nb".into(),
            "shape 0: column name \"a\\nb\" with a control character",
        ),
        (
            |p| p.shapes[0].columns[0].name = "x".repeat(256),
            "shape 0: column name of 256 bytes, more than 255",
        ),
        (
            |p| p.shapes[0].columns[3].source = Source::Fixed("x".repeat(1 << 20)),
            "shape 0: names and constants of more than 262144 bytes",
        ),
    ];
    for (change, expected) in cases {
        let mut plan = plan();
        change(&mut plan);
        assert_eq!(check_plan(&plan, &relation(1)), Err((*expected).into()));
    }
}

#[test]
fn an_outcome_that_does_not_hold_together_says_where() {
    type Change = fn(&mut Outcome);
    let cases: &[(Change, &str)] = &[
        (|o| _ = o.verdicts.pop(), "3 verdicts for 4 events"),
        (|o| o.verdicts[0] = 4, "verdict 4 for event 0"),
        (|o| o.reasons.clear(), "0 reasons for 1 rejects"),
        (|o| o.event_routes = vec![0], "`event-routes` has 1 entries for 4"),
        (|o| o.event_routes[0] = 3, "`event-routes` has route 3 of 2"),
        (|o| o.row_routes = vec![0; 3], "`row-routes` has 3 entries for 2"),
        (|o| o.row_routes[1] = u32::MAX, "`row-routes` has route 4294967295 of 2"),
        (|o| o.routes[0].clear(), "route without a name"),
        (|o| o.routes[0] = "a\r\n".into(), "route name \"a\\r\\n\" with a control character"),
        (|o| o.row_shapes = vec![0], "1 row-shapes for 2 rows"),
        (|o| o.row_shapes[1] = 1, "row 1 has shape 1 of 1"),
        (|o| o.row_events[1] = 4, "row 1 is of event 4, whose verdict is not emit"),
        (|o| o.row_events[0] = 0, "row 0 is of event 0, whose verdict is not emit"),
        (|o| o.verdicts[0] = EMIT, "2 events are emitted, but only 1 have rows"),
        (|o| (o.verdicts[0], o.row_events[1]) = (EMIT, 0), "row 1 is out of order"),
        (|o| o.starts.clear(), "4 cells without `starts`"),
        (|o| o.starts = vec![0, 4], "2 starts for 2 rows"),
        (|o| o.starts[0] = 1, "`starts` does not go from 0 to 4 in steps forward"),
        (|o| o.starts[2] = 5, "`starts` does not go from 0 to 4 in steps forward"),
        (|o| o.starts[1] = 5, "`starts` does not go from 0 to 4 in steps forward"),
        (|o| o.starts[1] = 1, "row 0 has 1 cells for 2 computed columns"),
        (|o| o.starts[1] = 3, "row 0 has 3 cells for 2 computed columns"),
        (|o| _ = o.data.pop(), "4 tags for 3 cells"),
        (|o| o.tags[1] = 3, "row 0, computed cell 1: tag 3, but the plan says 2"),
        (|o| o.data[0] = (2 << 32) | 2, "row 0, computed cell 0: 2 bytes at 2 of a heap of 3"),
        (
            |o| o.data[0] = u64::MAX,
            "row 0, computed cell 0: 4294967295 bytes at 4294967295 of a heap of 3",
        ),
        (|o| o.heap = vec![0, 0xc3, 0x28], "row 0, computed cell 0: no UTF-8"),
    ];
    for (change, expected) in cases {
        let mut outcome = outcome();
        change(&mut outcome);
        assert_eq!(check(&outcome, &plan()), Err(Fault::Wrong((*expected).into())));
    }
    assert!(check_outcome(&outcome(), 4, BOUNDS, |_| None).is_err());
}

#[test]
fn each_type_has_its_values() {
    let one = |tag: u8, data: u64, heap: &[u8]| {
        let plan = Plan { shapes: vec![shape(&[Source::Computed(tag)])], ..plan() };
        let outcome = Outcome {
            verdicts: vec![EMIT],
            event_routes: vec![],
            row_events: vec![0],
            row_shapes: vec![0],
            row_routes: vec![],
            starts: vec![0, 1],
            tags: vec![tag],
            data: vec![data],
            heap: heap.into(),
            routes: vec![],
            reasons: vec![],
        };
        let shapes = Shapes::of(&plan);
        check_outcome(&outcome, 1, BOUNDS, |_| Some(&shapes)).is_ok()
    };
    let inline = |tag, data| one(tag, data, b"");
    let heap = |tag, bytes: &[u8]| one(tag, bytes.len() as u64, bytes);
    for (good, bad) in [
        (inline(1, 1), inline(1, 2)),
        (inline(5, i64::MAX.cast_unsigned()), inline(5, 1 << 40)),
        (inline(6, 86_400_000_000), inline(6, 86_400_000_001)),
        (heap(16, "é".as_bytes()), heap(16, b"\xff")),
        (heap(17, b"-12.30"), heap(17, b"1.")),
        (heap(17, b"NaN"), heap(17, b"nan")),
        (heap(17, b"0.5"), heap(17, b"01")),
        (heap(17, b"0"), heap(17, b"")),
        (heap(18, b"{\"a\": [1]}"), heap(18, b"{\"a\": [1]} x")),
        (heap(18, b"\"\\u00e9\""), heap(18, b"\"\xff\"")),
        (heap(20, &[0; 16]), heap(20, &[0; 15])),
        (heap(21, b" [1, null]"), heap(21, b"{}")),
    ] {
        assert!(good && !bad);
    }
    assert!(heap(19, b"\xff\x00"));
    assert!(inline(2, u64::MAX) && inline(3, u64::MAX) && inline(4, u64::MAX));
}

#[test]
fn many_rows_that_share_one_heap_are_bounded() {
    let plan = Plan { shapes: vec![shape(&[Source::Computed(19)])], ..plan() };
    let rows = 1_000;
    let shared = |events: Vec<u32>, length: u64| Outcome {
        verdicts: vec![EMIT; events.last().map_or(0, |last| *last as usize + 1)],
        event_routes: vec![],
        row_events: events,
        row_shapes: vec![0; rows],
        row_routes: vec![],
        starts: (0..=1_000).collect(),
        tags: vec![19; rows],
        data: vec![length; rows],
        heap: vec![0; 1 << 20],
        routes: vec![],
        reasons: vec![],
    };
    let check = |outcome: &Outcome| {
        let count = outcome.verdicts.len();
        let shapes = Shapes::of(&plan);
        check_outcome(outcome, count, BOUNDS, |_| Some(&shapes)).map_err(|error| error.to_string())
    };
    assert_eq!(check(&shared(vec![0; rows], 16_000)), Ok(()));
    assert_eq!(
        check(&shared(vec![0; rows], 17_000)).unwrap_err(),
        "made more than 16MiB of one event: raise `plugins.guest.limits.event_output`"
    );
    let spread = (0..rows as u32).collect::<Vec<_>>();
    assert_eq!(check(&shared(spread.clone(), 67_000)), Ok(()));
    assert_eq!(
        check(&shared(spread, 68_000)).unwrap_err(),
        "made more than 64MiB of the events of one call: raise `plugins.guest.limits.output`"
    );
}

#[test]
fn many_rows_of_a_shape_with_much_text_are_bounded() {
    let plan = Plan { shapes: vec![shape(&[Source::Fixed("x".repeat(200_000))])], ..plan() };
    let split = |rows: usize| Outcome {
        verdicts: vec![EMIT],
        event_routes: vec![],
        row_events: vec![0; rows],
        row_shapes: vec![0; rows],
        row_routes: vec![],
        starts: vec![],
        tags: vec![],
        data: vec![],
        heap: vec![],
        routes: vec![],
        reasons: vec![],
    };
    let shapes = Shapes::of(&plan);
    assert_eq!(check_outcome(&split(80), 1, BOUNDS, |_| Some(&shapes)), Ok(()));
    let error = check_outcome(&split(90), 1, BOUNDS, |_| Some(&shapes)).unwrap_err();
    assert!(matches!(error, Fault::Large(_)), "{error}");
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let numbers = || vec(0..6_u32, 0..6);
    let data = prop_oneof![0..9_u64, any::<u64>(), (0..9_u64).prop_map(|at| (at << 32) | 2)];
    (
        (vec(0..5_u8, 4), numbers(), vec(0..4_u32, 0..4), numbers(), numbers()),
        (numbers(), vec(0..40_u8, 0..6), vec(data, 0..6), vec(any::<u8>(), 0..9)),
        (vec(".{0,3}", 0..3), vec(".{0,3}", 0..3)),
    )
        .prop_map(|(events, cells, texts)| {
            let (verdicts, event_routes, row_events, row_shapes, row_routes) = events;
            let (starts, tags, data, heap) = cells;
            let (routes, reasons) = texts;
            Outcome {
                verdicts,
                event_routes,
                row_events,
                row_shapes,
                row_routes,
                starts,
                tags,
                data,
                heap,
                routes,
                reasons,
            }
        })
}

/// Reads everything that the outcome refers to, as the pipeline does, without asking.
fn use_it(outcome: &Outcome, plan: &Plan) {
    for (row, &event) in outcome.row_events.iter().enumerate() {
        assert_eq!(outcome.verdicts[event as usize], EMIT);
        let shape = &plan.shapes[outcome.row_shapes[row] as usize];
        let first = outcome.starts.get(row).copied().unwrap_or(0) as usize;
        for (cell, _) in computed(shape).enumerate() {
            let (tag, data) = (outcome.tags[first + cell], outcome.data[first + cell]);
            if (16..32).contains(&tag) {
                let (at, length) = ((data >> 32) as usize, (data & 0xffff_ffff) as usize);
                let bytes = &outcome.heap[at..at + length];
                assert!(tag != 16 || std::str::from_utf8(bytes).is_ok());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_outcome_makes_the_check_or_who_believes_it_panic(outcome in any_outcome()) {
        let plan = plan();
        if check(&outcome, &plan).is_ok() {
            use_it(&outcome, &plan);
        }
    }

    #[test]
    fn an_outcome_with_one_thing_changed_is_refused_or_safe(
        list in 0..7_usize, at in 0..4_usize, value in prop_oneof![0..9_u64, any::<u64>()]
    ) {
        let mut outcome = outcome();
        let small = value as u32;
        let set = |numbers: &mut Vec<u32>| if let Some(n) = numbers.get_mut(at) { *n = small };
        match list {
            0 => outcome.verdicts[at] = value as u8,
            1 => set(&mut outcome.row_events),
            2 => set(&mut outcome.row_shapes),
            3 => set(&mut outcome.starts),
            4 => outcome.tags[at] = value as u8,
            5 => outcome.data[at] = value,
            _ => set(&mut outcome.row_routes),
        }
        if check(&outcome, &plan()).is_ok() {
            use_it(&outcome, &plan());
        }
    }
}
