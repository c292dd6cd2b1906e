//! What a guest can wait for in a host's function, where no epoch interrupts it: in one call, all
//! of that together takes no longer than its requests may.

use std::time::Instant;

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime::{bail, format_err};
use wasmtime_wasi::p2::bindings::io::{poll as async_poll, streams as async_streams};
use wasmtime_wasi::p2::bindings::sync::io::{poll, streams};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, StreamError, StreamResult};
use wasmtime_wasi::runtime::in_tokio;

use super::http::Hooks;

/// Where the functions of `wasi:io` find what they are about.
pub(super) struct Io;

impl HasData for Io {
    type Data<'a> = Waits<'a>;
}

/// One instance's handles, and how long their owner may wait.
pub(in crate::plugin) struct Waits<'a> {
    pub(super) table: &'a mut ResourceTable,
    pub(super) hooks: &'a mut Hooks,
}

/// `work`, or an error when it takes until then.
fn within<T>(
    until: Instant,
    work: impl Future<Output = wasmtime::Result<T>>,
) -> wasmtime::Result<T> {
    in_tokio(async {
        match tokio::time::timeout_at(until.into(), work).await {
            Ok(done) => done,
            Err(_) => bail!("{TOO_LONG}"),
        }
    })
}

/// [`within`], for streams.
fn stream_within<T>(
    until: Instant,
    work: impl Future<Output = StreamResult<T>>,
) -> StreamResult<T> {
    in_tokio(async {
        let done = tokio::time::timeout_at(until.into(), work).await;
        done.unwrap_or_else(|_| Err(StreamError::Trap(format_err!("{TOO_LONG}"))))
    })
}

const TOO_LONG: &str = "waited for longer than `limits.http_time`";

impl poll::Host for Waits<'_> {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        within(self.hooks.until(), async_poll::Host::poll(self.table, pollables))
    }
}

impl poll::HostPollable for Waits<'_> {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        poll::HostPollable::ready(self.table, pollable)
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        within(self.hooks.until(), async_poll::HostPollable::block(self.table, pollable))
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        poll::HostPollable::drop(self.table, pollable)
    }
}

impl streams::Host for Waits<'_> {
    fn convert_stream_error(
        &mut self,
        error: StreamError,
    ) -> wasmtime::Result<streams::StreamError> {
        streams::Host::convert_stream_error(self.table, error)
    }
}

impl streams::HostInputStream for Waits<'_> {
    fn drop(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<()> {
        within(self.hooks.until(), async_streams::HostInputStream::drop(self.table, stream))
    }

    fn read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        streams::HostInputStream::read(self.table, stream, len)
    }

    fn blocking_read(
        &mut self,
        stream: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<Vec<u8>> {
        let read = async_streams::HostInputStream::blocking_read(self.table, stream, len);
        stream_within(self.hooks.until(), read)
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        streams::HostInputStream::skip(self.table, stream, len)
    }

    fn blocking_skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        let skip = async_streams::HostInputStream::blocking_skip(self.table, stream, len);
        stream_within(self.hooks.until(), skip)
    }

    fn subscribe(
        &mut self,
        stream: Resource<DynInputStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        streams::HostInputStream::subscribe(self.table, stream)
    }
}

impl streams::HostOutputStream for Waits<'_> {
    fn drop(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<()> {
        within(self.hooks.until(), async_streams::HostOutputStream::drop(self.table, stream))
    }

    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        streams::HostOutputStream::check_write(self.table, stream)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        streams::HostOutputStream::write(self.table, stream, bytes)
    }

    fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        use async_streams::HostOutputStream as Async;
        let write = Async::blocking_write_and_flush(self.table, stream, bytes);
        stream_within(self.hooks.until(), write)
    }

    fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        len: u64,
    ) -> StreamResult<()> {
        use async_streams::HostOutputStream as Async;
        let write = Async::blocking_write_zeroes_and_flush(self.table, stream, len);
        stream_within(self.hooks.until(), write)
    }

    fn subscribe(
        &mut self,
        stream: Resource<DynOutputStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        streams::HostOutputStream::subscribe(self.table, stream)
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, len: u64) -> StreamResult<()> {
        streams::HostOutputStream::write_zeroes(self.table, stream, len)
    }

    fn flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        streams::HostOutputStream::flush(self.table, stream)
    }

    fn blocking_flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        let flush = async_streams::HostOutputStream::blocking_flush(self.table, stream);
        stream_within(self.hooks.until(), flush)
    }

    fn splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        streams::HostOutputStream::splice(self.table, to, from, len)
    }

    fn blocking_splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        let splice = async_streams::HostOutputStream::blocking_splice(self.table, to, from, len);
        stream_within(self.hooks.until(), splice)
    }
}
