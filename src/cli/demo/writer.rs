//! The demo's users: they post, comment, vote, change their minds, and are moderated.

use std::time::Duration;

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;
use tracing::warn;

const AUTHORS: [&str; 6] = ["ada", "grace", "linus", "margaret", "edsger", "barbara"];
const SUBREDDITS: [&str; 4] = ["rust", "postgres", "webassembly", "askreddit"];
const TITLES: [&str; 5] = [
    "What did you build this weekend?",
    "A slot that was never dropped",
    "Reading the write-ahead log for fun",
    "Why is my index not used?",
    "Sandboxes all the way down",
];
const COMMENTS: [&str; 4] = ["This.", "Source?", "Works on my machine.", "I disagree, politely."];

/// Writes `rate` changes a second until shutdown.
pub(super) async fn write(mut database: Client, rate: u32, shutdown: CancellationToken) {
    if rate == 0 {
        return shutdown.cancelled().await;
    }
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        if let Err(error) = change(&mut database).await {
            warn!("the demo's writer ends: {error}");
            return;
        }
    }
}

async fn change(database: &mut Client) -> Result<(), Error> {
    let (dice, author, subreddit, title, comment) = {
        let mut random = rand::rng();
        let mut pick = |from: &[&'static str]| *from.choose(&mut random).unwrap_or(&"");
        let words = (pick(&AUTHORS), pick(&SUBREDDITS), pick(&TITLES), pick(&COMMENTS));
        (random.random_range(0..20), words.0, words.1, words.2, words.3)
    };
    match dice {
        0..5 => post(database, subreddit, author, title).await,
        5..10 => on_a_post(database, COMMENT, &[&author, &comment]).await,
        10..16 => vote(database, author, if dice % 3 == 0 { -1 } else { 1 }).await,
        16 => on_a_post(database, REMOVE, &[]).await,
        17 => on_a_post(database, RENAME, &[&title]).await,
        18 => on_a_post(database, DELETE, &[]).await,
        _ => changed_their_mind(database, subreddit, author, title).await,
    }
}

const POST: &str =
    "INSERT INTO reddit.posts (subreddit, author, email, title) VALUES ($1, $2, $3, $4)";
const COMMENT: &str = "INSERT INTO reddit.comments (post_id, author, body)
    SELECT id, $1, $2 FROM reddit.posts ORDER BY random() LIMIT 1";
const REMOVE: &str = "UPDATE reddit.posts SET removed = true
    WHERE id = (SELECT id FROM reddit.posts ORDER BY random() LIMIT 1)";
const RENAME: &str = "UPDATE reddit.posts SET title = $1
    WHERE id = (SELECT id FROM reddit.posts ORDER BY random() LIMIT 1)";
const DELETE: &str = "DELETE FROM reddit.posts
    WHERE id = (SELECT id FROM reddit.posts ORDER BY random() LIMIT 1)";
const VOTE: &str = "INSERT INTO reddit.votes (post_id, author, value)
    SELECT id, $1, $2 FROM reddit.posts ORDER BY random() LIMIT 1
    ON CONFLICT (post_id, author) DO UPDATE SET value = excluded.value
    RETURNING post_id";
const SCORE: &str = "UPDATE reddit.posts SET score =
    (SELECT coalesce(sum(value), 0) FROM reddit.votes WHERE post_id = id) WHERE id = $1";

type Parameters<'a> = &'a [&'a (dyn tokio_postgres::types::ToSql + Sync)];

async fn post(database: &Client, place: &str, author: &str, title: &str) -> Result<(), Error> {
    let email = format!("{author}@example.com");
    database.execute(POST, &[&place, &author, &email, &title]).await.map(drop)
}

async fn on_a_post(database: &Client, sql: &str, values: Parameters<'_>) -> Result<(), Error> {
    database.execute(sql, values).await.map(drop)
}

/// A vote and the score that it changes are one transaction.
async fn vote(database: &mut Client, author: &str, value: i16) -> Result<(), Error> {
    let transaction = database.transaction().await?;
    if let Some(row) = transaction.query_opt(VOTE, &[&author, &value]).await? {
        transaction.execute(SCORE, &[&row.get::<_, i64>(0)]).await?;
    }
    transaction.commit().await
}

/// What is rolled back never comes out.
async fn changed_their_mind(
    database: &mut Client,
    subreddit: &str,
    author: &str,
    title: &str,
) -> Result<(), Error> {
    let transaction = database.transaction().await?;
    let email = format!("{author}@example.com");
    transaction.execute(POST, &[&subreddit, &author, &email, &title]).await?;
    transaction.rollback().await
}
