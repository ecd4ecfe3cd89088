//! Requests that say all by their kind.

use super::Message;
use crate::WireError;
use crate::builder::{Builder, Root};
use crate::generated::mesh::wire as fb;

macro_rules! empty {
    ($($name:ident, $args:ident;)*) => {$(
        pub(crate) struct $name;

        impl<'a> Message<'a> for $name {
            type Table = fb::$name<'a>;

            fn view(_: Self::Table) -> Result<Self, WireError> {
                Ok(Self)
            }

            fn check(&self) -> Result<(), WireError> {
                Ok(())
            }

            fn build(&self, to: &mut Builder) -> Root {
                fb::$name::create(&mut to.flat, &fb::$args {}).into()
            }
        }
    )*};
}

empty! {
    TopologyRequest, TopologyRequestArgs;
    StatusRequest, StatusRequestArgs;
}
