//! The bytes of computed cells, kept so that text is written in place.

use crate::tag;

/// Text and bytes apart: what is text can be appended to as text.
#[derive(Debug, Default)]
pub struct Heap {
    pub(crate) text: String,
    /// They are put behind the text when all is written.
    bytes: Vec<u8>,
}

impl Heap {
    /// Keeps text, and says where.
    #[inline]
    pub(crate) fn keep_text(&mut self, text: &str) -> u64 {
        let start = self.text.len();
        self.text.push_str(text);
        self.place_of_text(start)
    }

    /// Where the text is that begins there and ends at the end.
    #[inline]
    pub(crate) fn place_of_text(&self, start: usize) -> u64 {
        place(start, self.text.len().saturating_sub(start))
    }

    /// Keeps bytes, and says where among the bytes.
    pub(crate) fn keep_bytes(&mut self, bytes: &[u8]) -> u64 {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        place(start, bytes.len())
    }

    /// All of it in one; the places of cells that are bytes are moved behind the text.
    pub(crate) fn finish(self, tags: &[u8], data: &mut [u64]) -> Vec<u8> {
        let mut heap = self.text.into_bytes();
        if self.bytes.is_empty() {
            return heap;
        }
        let behind = place(heap.len(), 0);
        let bytes = tags.iter().zip(data).filter(|(tag, _)| matches!(**tag, tag::BYTEA | tag::UUID));
        bytes.for_each(|(_, place)| *place += behind);
        heap.extend_from_slice(&self.bytes);
        heap
    }
}

fn place(start: usize, length: usize) -> u64 {
    (start as u64) << 32 | length as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cell;

    #[test]
    fn bytes_stand_behind_the_text_in_the_end() {
        let mut heap = Heap::default();
        let cells = [Cell::Bytea(&[255]), Cell::Text("ab"), Cell::Int(7), Cell::Bytea(&[1, 2])];
        let (tags, mut data): (Vec<_>, Vec<_>) =
            cells.map(|cell| cell.write(&mut heap)).into_iter().unzip();
        assert_eq!(heap.finish(&tags, &mut data), [b'a', b'b', 255, 1, 2]);
        assert_eq!(data, [place(2, 1), place(0, 2), 7, place(3, 2)]);
    }
}
