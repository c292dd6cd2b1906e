//! Blocks of open transactions, and prepared transactions.

use super::*;

#[test]
fn an_open_transaction_comes_in_blocks_and_commits_or_aborts() {
    check(VALID[11], expect!["Ok(StreamStart { xid: 735, first: true })"]);
    check(VALID[12], expect!["Ok(StreamStop)"]);
    check(
        VALID[13],
        expect![[r#"
        Ok(
            StreamCommit {
                xid: 735,
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
    check(VALID[14], expect!["Ok(StreamAbort { xid: 735, subxid: 736, at: None })"]);
    check(
        VALID[15],
        expect![[r#"
        Ok(
            StreamAbort {
                xid: 735,
                subxid: 736,
                at: Some(
                    (
                        Lsn(
                            97500059720,
                        ),
                        1608792832937021,
                    ),
                ),
            },
        )
    "#]],
    );
}

#[test]
fn a_transaction_is_prepared_and_commits_or_is_rolled_back() {
    check(
        VALID[16],
        expect![[r#"
        Ok(
            BeginPrepare(
                Prepared {
                    prepare_lsn: Lsn(
                        1,
                    ),
                    end_lsn: Lsn(
                        2,
                    ),
                    time: 1608792832937021,
                    xid: 735,
                    gid: "gid",
                },
            ),
        )
    "#]],
    );
    check(
        VALID[17],
        expect![[r#"
        Ok(
            Prepare(
                Prepared {
                    prepare_lsn: Lsn(
                        1,
                    ),
                    end_lsn: Lsn(
                        2,
                    ),
                    time: 1608792832937021,
                    xid: 735,
                    gid: "gid",
                },
            ),
        )
    "#]],
    );
    check(
        VALID[20],
        expect![[r#"
        Ok(
            StreamPrepare(
                Prepared {
                    prepare_lsn: Lsn(
                        1,
                    ),
                    end_lsn: Lsn(
                        2,
                    ),
                    time: 1608792832937021,
                    xid: 735,
                    gid: "gid",
                },
            ),
        )
    "#]],
    );
    check(
        VALID[18],
        expect![[r#"
        Ok(
            CommitPrepared {
                commit_lsn: Lsn(
                    1,
                ),
                end_lsn: Lsn(
                    2,
                ),
                time: 1608792832937021,
                xid: 735,
                gid: "gid",
            },
        )
    "#]],
    );
    check(
        VALID[19],
        expect![[r#"
        Ok(
            RollbackPrepared {
                prepare_end_lsn: Lsn(
                    1,
                ),
                end_lsn: Lsn(
                    2,
                ),
                prepare_time: 1608792832937021,
                time: 1608792832937022,
                xid: 735,
                gid: "gid",
            },
        )
    "#]],
    );
}

/// A message as it stands inside a streamed block of the level 9.
fn streamed(hex: &str) -> Vec<u8> {
    let mut message = bytes(hex);
    message.splice(1..1, 9_u32.to_be_bytes());
    message
}

#[test]
fn inside_a_block_a_change_says_whose_it_is() {
    for hex in &VALID[3..11] {
        let (plain, within) = (bytes(hex), streamed(hex));
        assert_eq!(decode_streamed(&within), Ok((Some(9), decode(&plain).unwrap())), "{hex}");
        for len in 0..within.len() {
            let cut = decode_streamed(&within[..len]);
            assert!(matches!(cut, Err(DecodeError::Truncated { .. })), "{hex} at {len}: {cut:?}");
        }
    }
    for hex in [VALID[2], VALID[12]] {
        let plain = bytes(hex);
        assert_eq!(decode_streamed(&plain), Ok((None, decode(&plain).unwrap())), "{hex}");
    }
}
