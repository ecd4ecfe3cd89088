//! A payload under the name of any kind: it is refused, or read in full and written again to the same message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_wire::{Envelope, FrameDecoder, FrameWriter, Kind, PeerMessage, Request, Response};

/// Looks at every field, sends the message on, and compares what comes out.
macro_rules! pass_on {
    ($view:ident, $class:ident, $kind:expr, $payload:expr) => {
        if let Ok(message) = $view::decode($kind, $payload) {
            let _ = format!("{message:?}");
            // Fields that share their bytes may take more of them when they are written apart.
            if let Ok(bytes) = FrameWriter::new().frame(&Envelope::default(), &message) {
                let frame = FrameDecoder::new().peek(&bytes).expect("a sound frame").expect("a whole frame");
                assert_eq!(frame.$class().as_ref(), Ok(&message), "what is written is what is read");
            }
        }
    };
}

fuzz_target!(|data: &[u8]| {
    let Some((&number, payload)) = data.split_first() else { return };
    let kind = Kind::ALL[usize::from(number) % Kind::ALL.len()];
    pass_on!(Request, request, kind, payload);
    pass_on!(Response, response, kind, payload);
    pass_on!(PeerMessage, peer, kind, payload);
});
