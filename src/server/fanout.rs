//! Which subscribers an event is for, found by what is in the event and not by asking each of them.
//!
//! A filter that says `column = value` is found by looking that value up; how many subscribers wait
//! for other values does not matter. Conditions that cannot be looked up are asked once for each
//! different group of them, however many subscribers share it.

mod hub;
mod index;
mod scan;
mod view;

pub use hub::Wanted;
pub(super) use hub::{Attached, Hubs, Item, Seat, Terms};
pub use index::Index;
pub(super) use view::View;
