//! A door for the fuzz target `stream` (`tests/fuzz`): what a server sends, from the socket's bytes
//! to the journal's blocks, without a server.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use tokio::io::AsyncReadExt as _;

use super::assembler::{Assembler, Definitions, Step};
use super::wire::{Wire, row, server_error};
use crate::model::{ByteSize, Lsn, Relation, RelationId};
use crate::store::journal::{Append, Block};
use crate::store::spill::Spills;

/// Takes bytes in, in two pieces, as if they had come from a server; the blocks that come of them.
/// Transactions that they leave open stay in the folder.
///
/// # Errors
/// What makes no sense in them.
pub fn receive(bytes: &[u8], folder: &Path) -> anyhow::Result<Vec<Block>> {
    let spills = Spills::open(folder, ByteSize::new(0), Arc::new(|| Ok(())))?;
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut wire = Wire::new(first.chain(second));
    let interned = Arc::new(Mutex::new(Vec::<Arc<Relation>>::new()));
    let known = Arc::clone(&interned);
    let resolve = move |id: RelationId| {
        let known = known.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((id.0 as usize).checked_sub(1).and_then(|at| known.get(at)).cloned())
    };
    let intern = move |relation: &Relation| {
        let mut interned = interned.lock().unwrap_or_else(PoisonError::into_inner);
        interned.push(Arc::new(relation.clone()));
        // From 1 on, as a store numbers them.
        Ok(RelationId(u32::try_from(interned.len()).unwrap_or(u32::MAX)))
    };
    let definitions = Definitions::new(Vec::new(), Box::new(resolve));
    let mut assembler = Assembler::new(Lsn::ZERO, definitions, Box::new(intern), spills)?;
    let mut blocks = Vec::new();
    // There is nothing to wait for: the bytes are all here, and then there is an end.
    while let Some(Ok(())) = wire.fill().now_or_never() {
        while let Some((tag, body)) = wire.take()? {
            take(&mut assembler, tag, body)?;
            while assembler.has_block() {
                match assembler.take_append()? {
                    Some(Append::Block(block) | Append::Chunk(block, _)) => blocks.push(block),
                    Some(Append::Idle(_)) => {}
                    None => break,
                }
            }
        }
    }
    Ok(blocks)
}

fn take(assembler: &mut Assembler, tag: u8, body: &[u8]) -> anyhow::Result<()> {
    match (tag, body.split_first()) {
        (b'd', Some((b'w', data))) => {
            let Some((_, message)) = data.split_first_chunk::<24>() else { return Ok(()) };
            match assembler.push(message, 0)? {
                Step::Done => {}
                Step::PrimaryKey(_) => assembler.set_primary_key(&[]),
                Step::Array(of) => assembler.set_array(of, None),
                Step::Seal => {
                    assembler.seal()()?;
                    assembler.sealed();
                }
            }
        }
        (b'd', Some((b'k', data))) => {
            let end = data.first_chunk().map(|end| u64::from_be_bytes(*end));
            assembler.reached(Lsn(end.unwrap_or_default()));
        }
        (b'D', _) => drop(row(body)?),
        (b'E', _) => drop(server_error(body)),
        _ => {}
    }
    Ok(())
}
