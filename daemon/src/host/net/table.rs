//! The connections of a core by their numbers.
//!
//! Invariant: a number is never used again. Its low bits are the place in the table, the others count up.

use std::rc::Rc;

use mesh_base::limits::CONNECTIONS_PER_CORE_MAX;

use super::connection::Connection;
use super::tally::{Share, Tally};
use crate::core::ConnId;
use crate::host::socket::Socket;

const PLACE_BITS: u32 = 16;

const _: () = assert!(CONNECTIONS_PER_CORE_MAX <= 1 << PLACE_BITS);

#[derive(Default)]
pub(super) struct Table {
    places: Vec<Option<Rc<Connection>>>,
    free: Vec<usize>,
    made: u64,
}

impl Table {
    /// Makes a connection of a socket and gives it a number.
    pub(super) fn insert(&mut self, socket: Socket, answers: &Rc<Tally>) -> Rc<Connection> {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        assert!(place < 1 << PLACE_BITS);
        self.made += 1;
        let id = ConnId(self.made << PLACE_BITS | place as u64);
        let connection = Rc::new(Connection::new(id, socket, Share::of(answers)));
        if let Some(slot) = self.places.get_mut(place) {
            assert!(slot.is_none(), "a free place is empty");
            *slot = Some(Rc::clone(&connection));
        }
        connection
    }

    /// The connection of a number, while it is here.
    pub(super) fn get(&self, id: ConnId) -> Option<&Rc<Connection>> {
        self.places.get(place_of(id))?.as_ref().filter(|connection| connection.id() == id)
    }

    /// Takes a connection out.
    pub(super) fn remove(&mut self, id: ConnId) -> Option<Rc<Connection>> {
        self.get(id)?;
        self.free.push(place_of(id));
        self.places.get_mut(place_of(id))?.take()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<Connection>> {
        self.places.iter().flatten()
    }
}

fn place_of(id: ConnId) -> usize {
    usize::try_from(id.0 & ((1 << PLACE_BITS) - 1)).unwrap_or(usize::MAX)
}
