//! Clocks that say when the events were committed, and random numbers that follow from an event's
//! id. Nothing here looks at the machine.

use wasmtime::bail;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::{WasiView, async_trait};

use crate::plugin::host::Host;

/// Bytes that one call to the generator gives at most.
const MOST_RANDOM: u64 = 64 << 10;
/// What seeds the hash tables of guests: it must be the same for every instance.
const SEED: (u64, u64) = (0x7761_6c6d_696c_6c00, 0x6d69_6c6c_7761_6c00);

impl wall_clock::Host for Host {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        // Before 1970 there is no time in WASI.
        let micros = Host::now(self)?.max(0).cast_unsigned();
        let nanoseconds = u32::try_from(micros % 1_000_000 * 1_000)?;
        Ok(wall_clock::Datetime { seconds: micros / 1_000_000, nanoseconds })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1_000 })
    }
}

impl Host {
    /// The commit time, and what was slept since the call began.
    fn nanoseconds(&mut self) -> wasmtime::Result<u64> {
        let micros = Host::now(self)?.max(0).cast_unsigned();
        Ok(micros.saturating_mul(1_000).saturating_add(self.slept))
    }

    fn random_bytes(&self, len: u64) -> wasmtime::Result<Vec<u8>> {
        if len > MOST_RANDOM {
            bail!("asks for {len} random bytes at once, more than {MOST_RANDOM}");
        }
        Ok(self.random.bytes(usize::try_from(len)?)?)
    }
}

/// Time stands still while a guest computes. When it waits, its clock jumps to where it waits for,
/// so that a loop which waits for a time ends.
impl monotonic_clock::Host for Host {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.nanoseconds()
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1_000)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let left = when.saturating_sub(self.nanoseconds()?);
        self.subscribe_duration(left)
    }

    fn subscribe_duration(&mut self, span: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.slept = self.slept.saturating_add(span);
        let table = self.ctx().table;
        let over = table.push(Over)?;
        subscribe(table, over)
    }
}

/// A span of time that is over.
struct Over;

#[async_trait]
impl Pollable for Over {
    async fn ready(&mut self) {}
}

impl random::Host for Host {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random.next()?)
    }
}

impl insecure::Host for Host {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random.next()?)
    }
}

impl insecure_seed::Host for Host {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok(SEED)
    }
}
