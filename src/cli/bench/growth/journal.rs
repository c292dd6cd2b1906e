//! What a row costs when much is kept already, and how long a restart takes then.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::super::{PATIENCE, slot, usage};
use super::report::Point;
use super::topic::Topic;
use super::trial::{Running, Setup, Trial};

/// Megabytes of text that are written altogether. The journal has them and so has the stream.
pub(super) const SIZES: [u64; 6] = [5, 15, 50, 150, 500, 1_500];
/// Bytes of text in the rows that fill it.
const WIDTH: u64 = 10_000;
/// Megabytes that are written at once; PostgreSQL forgets them then.
const PART: u64 = 250;
/// Of so many restarts the median is told.
const RESTARTS: usize = 3;
/// Between two looks at whether it is ready.
const MOMENT: Duration = Duration::from_millis(1);

/// One more row, and a restart, at each of these sizes.
pub(super) async fn measure(trial: &Trial<'_>, sizes: &[u64]) -> anyhow::Result<[Vec<Point>; 2]> {
    slot::make(trial.database, slot::COPY).await?;
    let mut running = trial.walmill(&Setup::USUAL)?;
    slot::walsender(trial.database, &mut running.process).await?;
    ready(&mut running).await?;
    let (mut cost, mut restart) = (Vec::new(), Vec::new());
    let mut filled = 0;
    for size in sizes {
        eprintln!("journal and restart, {size} MB of rows …");
        while filled < *size {
            let part = PART.min(size - filled);
            fill(trial, &mut running, part).await?;
            filled += part;
        }
        let point = one_more(trial, &mut running).await?;
        restart.push(restarts(&mut running, point.size).await?);
        cost.push(point);
    }
    running.process.stop().await?;
    slot::discard(trial.database).await?;
    Ok([cost, restart])
}

async fn fill(trial: &Trial<'_>, running: &mut Running, megabytes: u64) -> anyhow::Result<()> {
    let setup = Setup { width: WIDTH, ..Setup::USUAL };
    write(trial, running, &setup, megabytes * 1_000_000 / WIDTH).await
}

/// And waits until they are in the stream.
async fn write(
    trial: &Trial<'_>,
    running: &mut Running,
    setup: &Setup,
    rows: u64,
) -> anyhow::Result<()> {
    let before = running.done().await?;
    trial.write(setup, rows).await?;
    running.taken(before + rows).await?;
    trial.forget().await
}

async fn one_more(trial: &Trial<'_>, running: &mut Running) -> anyhow::Result<Point> {
    let rows = Topic::Journal.rows(0);
    let size = kept(running)?;
    let (began, before) = (Instant::now(), usage::of(running.process.id())?);
    write(trial, running, &Setup::USUAL, rows).await?;
    let (after, seconds) = (usage::of(running.process.id())?, began.elapsed().as_secs_f64());
    let cost = (after.cpu - before.cpu) / rows as f64 * 1e6;
    Ok(Point { size, cost, peak: after.peak, rows, seconds })
}

async fn restarts(running: &mut Running, size: f64) -> anyhow::Result<Point> {
    let mut times = Vec::new();
    for _ in 0..RESTARTS {
        running.process.end().await?;
        let began = Instant::now();
        running.process.again()?;
        ready(running).await?;
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let seconds = times[RESTARTS / 2];
    let peak = usage::of(running.process.id())?.peak;
    Ok(Point { size, cost: seconds * 1e3, peak, rows: 0, seconds })
}

/// Waits until events flow.
async fn ready(running: &mut Running) -> anyhow::Result<()> {
    let (client, deadline) = (reqwest::Client::new(), Instant::now() + PATIENCE);
    let url = format!("http://127.0.0.1:{}/readyz", running.port);
    loop {
        match client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            _ if Instant::now() > deadline => bail!("it is not ready"),
            _ => running.process.check()?,
        }
        tokio::time::sleep(MOMENT).await;
    }
}

/// Megabytes that its data folder takes on the disk.
fn kept(running: &Running) -> io::Result<f64> {
    Ok(bytes(&running.process.data())? as f64 / 1e6)
}

/// Files may vanish while they are looked at: what they held is elsewhere then.
fn bytes(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        sum += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes(&entry.path())?,
            Ok(metadata) => metadata.blocks() * 512,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(sum)
}
