//! Messages as bytes, and what is read from them.

mod transactions;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

/// Hexadecimal digits; blanks are for the reader, and `'text'` stands for itself.
fn bytes(hex: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in hex.split('\'').enumerate() {
        if index % 2 == 1 {
            bytes.extend(part.bytes());
            continue;
        }
        let digits: String = part.split_whitespace().collect();
        for at in (0..digits.len()).step_by(2) {
            bytes.push(u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal"));
        }
    }
    bytes
}

#[track_caller]
fn check(hex: &str, expect: Expect) {
    let bytes = bytes(hex);
    let decoded = decode(&bytes);
    let line = format!("{decoded:?}");
    expect.assert_eq(&if line.len() < 64 { line } else { format!("{decoded:#?}\n") });
}

/// One valid message of every kind.
const VALID: [&str; 21] = [
    "'B'  00000016 B374D848  00025A2F 0A1B2C3D  000002DF",
    "'C'  00  00000016 B374D848  00000016 B374D880  00025A2F 0A1B2C3D",
    "'O'  00000000 00000001  'far'00",
    "'R'  00004001  'public'00  'posts'00  'd'  0002  01'id'00 00000014 FFFFFFFF  \
     00'price'00 000006A4 000C0006",
    "'Y'  00005001  'public'00  'mood'00",
    "'I'  00004001  'N'  0003  't'00000002'42'  'n'  'u'",
    "'U'  00004001  'N'  0001  't'00000001'1'",
    "'U'  00004001  'K'  0001  't'00000001'1'  'N'  0001  't'00000001'2'",
    "'D'  00004001  'O'  0001  'b'00000002 00FF",
    "'T'  00000002  03  00004001 00004002",
    "'M'  01  00000000 000000FF  'pre'00  00000003 'abc'",
    "'S'  000002DF  01",
    "'E'",
    "'c'  000002DF  00  00000016 B374D848  00000016 B374D880  00025A2F 0A1B2C3D",
    "'A'  000002DF  000002E0",
    "'A'  000002DF  000002E0  00000016 B374D848  00025A2F 0A1B2C3D",
    "'b'  00000000 00000001  00000000 00000002  00025A2F 0A1B2C3D  000002DF  'gid'00",
    "'P'  00  00000000 00000001  00000000 00000002  00025A2F 0A1B2C3D  000002DF  'gid'00",
    "'K'  00  00000000 00000001  00000000 00000002  00025A2F 0A1B2C3D  000002DF  'gid'00",
    "'r'  00  00000000 00000001  00000000 00000002  00025A2F 0A1B2C3D  00025A2F 0A1B2C3E \
     000002DF  'gid'00",
    "'p'  00  00000000 00000001  00000000 00000002  00025A2F 0A1B2C3D  000002DF  'gid'00",
];

#[test]
fn a_transaction_begins_and_commits() {
    check(
        VALID[0],
        expect![[r#"
            Ok(
                Begin {
                    final_lsn: Lsn(
                        97500059720,
                    ),
                    time: 1608792832937021,
                    xid: 735,
                },
            )
        "#]],
    );
    check(
        VALID[1],
        expect![[r#"
        Ok(
            Commit {
                commit_lsn: Lsn(
                    97500059720,
                ),
                end_lsn: Lsn(
                    97500059776,
                ),
                time: 1608792832937021,
            },
        )
    "#]],
    );
    check(VALID[2], expect![[r#"Ok(Origin { commit_lsn: Lsn(1), name: "far" })"#]]);
}

#[test]
fn a_relation_and_its_types_are_described() {
    check(
        VALID[3],
        expect![[r#"
            Ok(
                Relation(
                    Relation {
                        oid: 16385,
                        schema: "public",
                        table: "posts",
                        identity: Default,
                        columns: [
                            Column {
                                key: true,
                                name: "id",
                                type_oid: 20,
                                type_mod: -1,
                            },
                            Column {
                                key: false,
                                name: "price",
                                type_oid: 1700,
                                type_mod: 786438,
                            },
                        ],
                    },
                ),
            )
        "#]],
    );
    check(VALID[4], expect![[r#"Ok(Type { oid: 20481, schema: "public", name: "mood" })"#]]);
    check(
        "'R' 00000001 00 't'00 'f' 0000",
        expect![[r#"
            Ok(
                Relation(
                    Relation {
                        oid: 1,
                        schema: "",
                        table: "t",
                        identity: Full,
                        columns: [],
                    },
                ),
            )
        "#]],
    );
}

#[test]
fn rows_are_null_unchanged_text_or_binary() {
    check(VALID[5], expect![[r#"Ok(Insert { relation: 16385, new: ["42", null, unchanged] })"#]]);
    check(VALID[6], expect![[r#"Ok(Update { relation: 16385, old: None, new: ["1"] })"#]]);
    check(
        VALID[7],
        expect![[r#"
            Ok(
                Update {
                    relation: 16385,
                    old: Some(
                        OldTuple {
                            kind: Key,
                            tuple: [
                                "1",
                            ],
                        },
                    ),
                    new: [
                        "2",
                    ],
                },
            )
        "#]],
    );
    check(
        VALID[8],
        expect![[r#"
            Ok(
                Delete {
                    relation: 16385,
                    old: OldTuple {
                        kind: Full,
                        tuple: [
                            binary "\x00\xff",
                        ],
                    },
                },
            )
        "#]],
    );
}

#[test]
fn truncate_and_message_say_their_options() {
    check(
        VALID[9],
        expect![[r#"
        Ok(
            Truncate {
                cascade: true,
                restart_identity: true,
                relations: [
                    16385,
                    16386,
                ],
            },
        )
    "#]],
    );
    check(
        VALID[10],
        expect![[r#"
            Ok(
                Message {
                    transactional: true,
                    lsn: Lsn(
                        255,
                    ),
                    prefix: "pre",
                    content: [
                        97,
                        98,
                        99,
                    ],
                },
            )
        "#]],
    );
    check(
        "'M' 00 00000000 00000001 00 00000000",
        expect![[r#"
            Ok(
                Message {
                    transactional: false,
                    lsn: Lsn(
                        1,
                    ),
                    prefix: "",
                    content: [],
                },
            )
        "#]],
    );
}

#[test]
fn a_short_message_names_the_field_it_ends_in() {
    check("", expect![[r#"Err(Truncated { field: "tag" })"#]]);
    check("42  00 00", expect![[r#"Err(Truncated { field: "final_lsn" })"#]]);
    check("'I' 00000001", expect![[r#"Err(Truncated { field: "tuple_kind" })"#]]);
    check("'I' 00000001 'N' 0001 't'", expect![[r#"Err(Truncated { field: "value_length" })"#]]);
    check(
        "'I' 00000001 'N' 0001 't' 7FFFFFFF 'ab'",
        expect![[r#"Err(Truncated { field: "value" })"#]],
    );
    check("'R' 00000001 'public'", expect![[r#"Err(Truncated { field: "schema" })"#]]);
    check("'T' FFFFFFFF 00 00000001", expect![[r#"Err(Truncated { field: "relations" })"#]]);
    check(
        "'M' 00 00000000 00000001 'p'00 FFFFFFFF 'ab'",
        expect![[r#"Err(Truncated { field: "content" })"#]],
    );
}

#[test]
fn an_unknown_code_names_its_field() {
    check("'?' 00000001 00000002", expect!["Err(UnknownMessage(63))"]);
    check("'I' 00000001 'K' 0000", expect![[r#"Err(Unknown { field: "tuple_kind", found: 75 })"#]]);
    check(
        "'U' 00000001 'x' 0000",
        expect![[r#"Err(Unknown { field: "tuple_kind", found: 120 })"#]],
    );
    check("'D' 00000001 'N' 0000", expect![[r#"Err(Unknown { field: "tuple_kind", found: 78 })"#]]);
    check(
        "'I' 00000001 'N' 0001 'z'",
        expect![[r#"Err(Unknown { field: "value_kind", found: 122 })"#]],
    );
    check(
        "'R' 00000001 'public'00 't'00 'x' 0000",
        expect![[r#"Err(Unknown { field: "replica_identity", found: 120 })"#]],
    );
    check("'R' 00000001 FF00 't'00 'd' 0000", expect![[r#"Err(NotUtf8 { field: "schema" })"#]]);
}

#[test]
fn bytes_behind_a_message_are_an_error() {
    check("'I' 00000001 'N' 0000 00", expect!["Err(TooLong { bytes: 1 })"]);
}

#[test]
fn a_message_cut_anywhere_is_an_error() {
    for hex in VALID {
        let whole = bytes(hex);
        decode(&whole).expect(hex);
        for len in 0..whole.len() {
            let cut = decode(&whole[..len]);
            if matches!(cut, Ok(Message::StreamAbort { at: None, .. })) {
                // What version 4 has more is behind the end of version 2.
                continue;
            }
            assert!(matches!(cut, Err(DecodeError::Truncated { .. })), "{hex} at {len}: {cut:?}");
        }
    }
}

#[test]
fn relations_are_replaced_in_place() {
    let mut insert = bytes(VALID[5]);
    frame::set_row_relation(&mut insert, 7);
    assert!(matches!(decode(&insert), Ok(Message::Insert { relation: 7, .. })));

    let mut truncate = bytes(VALID[9]);
    frame::set_truncate_relation(&mut truncate, 0, 8);
    frame::set_truncate_relation(&mut truncate, 1, 9);
    let Ok(Message::Truncate { relations, .. }) = decode(&truncate) else { panic!("truncate") };
    assert_eq!(relations.iter().collect::<Vec<_>>(), [8, 9]);
}

/// Bytes that are more often nearly a message than noise is.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let valid = (0..VALID.len()).prop_map(|index| bytes(VALID[index]));
    (valid, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut message, at, byte)| {
        let at = at.index(message.len());
        message[at] = byte;
        message
    })
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_an_error(
        message in prop_oneof![nearly(), prop::collection::vec(any::<u8>(), 0..200)],
    ) {
        // Printing walks every lazy part of it.
        let _ = format!("{:?}", (decode(&message), decode_streamed(&message)));
    }

    #[test]
    fn a_tuple_has_as_many_values_as_it_says(message in nearly()) {
        if let Ok(Message::Insert { new, .. } | Message::Update { new, .. }) = decode(&message) {
            prop_assert_eq!(new.iter().count(), new.len());
        }
    }

    #[test]
    fn what_we_make_up_reads_back(lsn: u64, end: u64, time in 0i64.., xid: u32) {
        let (commit_lsn, end_lsn) = (Lsn(lsn), Lsn(end));
        let (begin, commit) =
            (frame::begin(commit_lsn, time, xid), frame::commit(commit_lsn, end_lsn, time));
        prop_assert_eq!(decode(&begin), Ok(Message::Begin { final_lsn: commit_lsn, time, xid }));
        prop_assert_eq!(decode(&commit), Ok(Message::Commit { commit_lsn, end_lsn, time }));
    }
}
