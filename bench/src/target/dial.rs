//! Making a TCP connection that must come about soon or not at all.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::OpenError;

/// How long a server may take to be reached, and to answer what it is asked before operations begin.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A connection that waits no longer than this for anything.
///
/// # Errors
/// [`OpenError::Later`]
pub(super) fn dial(address: SocketAddr) -> Result<TcpStream, OpenError> {
    let later = |error: std::io::Error| OpenError::Later(format!("{address}: {error}"));
    let stream = TcpStream::connect_timeout(&address, ANSWER_MAX).map_err(later)?;
    stream.set_nodelay(true).map_err(later)?;
    stream.set_read_timeout(Some(ANSWER_MAX)).map_err(later)?;
    stream.set_write_timeout(Some(ANSWER_MAX)).map_err(later)?;
    Ok(stream)
}
