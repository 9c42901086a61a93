//! Places of connections, which completions name instead of descriptors: a descriptor may be another connection's by
//! the time that its completion is looked at, a slot with its generation never is.

use super::connection::Connection;
use super::ring::SlotId;

/// Open connections.
#[derive(Debug)]
pub struct Slots<P> {
    places: Vec<(u32, Option<Connection<P>>)>,
    free: Vec<u32>,
}

impl<P> Slots<P> {
    pub fn new() -> Self {
        Slots { places: Vec::new(), free: Vec::new() }
    }

    pub fn insert(&mut self, connection: Connection<P>) -> SlotId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            (self.places.len() - 1) as u32
        });
        let (generation, place) = &mut self.places[index as usize];
        *place = Some(connection);
        SlotId { index, generation: *generation }
    }

    /// `None` when the connection is gone.
    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut Connection<P>> {
        match self.places.get_mut(id.index as usize) {
            Some((generation, place)) if *generation == id.generation => place.as_mut(),
            _ => None,
        }
    }

    pub fn remove(&mut self, id: SlotId) -> Option<Connection<P>> {
        let (generation, place) = self.places.get_mut(id.index as usize)?;
        if *generation != id.generation {
            return None;
        }
        let connection = place.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(id.index);
        Some(connection)
    }

    pub fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &Connection<P>)> {
        self.places.iter().enumerate().filter_map(|(index, (generation, place))| {
            let id = SlotId { index: index as u32, generation: *generation };
            place.as_ref().map(|connection| (id, connection))
        })
    }
}
