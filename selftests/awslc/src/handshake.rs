// SPDX-License-Identifier: MIT OR Apache-2.0

//! A TLS 1.3 handshake by rustls with AWS-LC as its provider: client and server in one process, with
//! nothing but memory between them.

use std::error::Error;
use std::sync::Arc;

use rcgen::CertifiedKey;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};

/// The name in the server's certificate.
const NAME: &str = "localhost";

/// How often the two may send in turn before the handshake counts as stuck.
const FLIGHTS: usize = 10;

/// A client and a server that trust each other, as they stand before any connection.
pub struct Peers {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// What is drawn anew for each connection, and travels in clear.
#[derive(Debug, PartialEq, Eq)]
pub struct Hello {
    /// The random bytes.
    pub random: Vec<u8>,
    /// The ephemeral public key.
    pub key_share: Vec<u8>,
}

impl Peers {
    /// Makes a key and a certificate for the server, which the client trusts. No session is ever
    /// resumed.
    ///
    /// # Errors
    ///
    /// Whatever rcgen and rustls answer.
    pub fn new() -> Result<Self, Box<dyn Error>> {
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([NAME.into()])?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone())?;
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.into())?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// Makes a connection; what the client's and the server's hello had in them.
    ///
    /// # Errors
    ///
    /// Whatever rustls answers, and where the handshake does not come to its end.
    pub fn shake_hands(&self) -> Result<[Hello; 2], Box<dyn Error>> {
        let name = ServerName::try_from(NAME)?;
        let mut client = ClientConnection::new(Arc::clone(&self.client), name)?.into();
        let mut server = ServerConnection::new(Arc::clone(&self.server))?.into();
        let mut first = None;
        for _ in 0..FLIGHTS {
            let flights = [
                carry(&mut client, &mut server)?,
                carry(&mut server, &mut client)?,
            ];
            let [of_client, of_server] = first.get_or_insert(flights);
            if !client.is_handshaking() && !server.is_handshaking() {
                return Ok([
                    hello(of_client, Side::Client).ok_or("the client sent no hello")?,
                    hello(of_server, Side::Server).ok_or("the server sent no hello")?,
                ]);
            }
        }
        Err("the handshake does not come to its end".into())
    }
}

/// Carries what the one has to say to the other, and returns it.
fn carry(from: &mut Connection, to: &mut Connection) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut flight = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut flight)?;
    }
    let mut rest = flight.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest)?;
        to.process_new_packets()?;
    }
    Ok(flight)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// Takes a flight apart that begins with a hello, by RFC 8446, sections 4.1.2 to 4.2.8 and 5.1.
fn hello(flight: &[u8], side: Side) -> Option<Hello> {
    const RECORD_HEAD: usize = 1 + 2 + 2;
    const HANDSHAKE_HEAD: usize = 1 + 3;
    const KEY_SHARE: usize = 51;

    let mut message = Reader(flight);
    message.bytes(RECORD_HEAD)?;
    let kind = *message.bytes(HANDSHAKE_HEAD)?.first()?;
    if kind != if side == Side::Client { 1 } else { 2 } {
        return None;
    }
    let _version = message.number(2)?;
    let random = message.bytes(32)?.to_vec();
    let _session = message.vector(1)?;
    match side {
        Side::Client => {
            let _suites = message.vector(2)?;
            let _compressions = message.vector(1)?;
        }
        Side::Server => {
            let _suite_and_compression = message.bytes(2 + 1)?;
        }
    }
    let mut extensions = Reader(message.vector(2)?);
    while let Some(kind) = extensions.number(2) {
        let mut body = Reader(extensions.vector(2)?);
        if kind == KEY_SHARE {
            // The client's first one is the one that it wants.
            if side == Side::Client {
                body = Reader(body.vector(2)?);
            }
            let _group = body.number(2)?;
            return Some(Hello {
                random,
                key_share: body.vector(2)?.to_vec(),
            });
        }
    }
    None
}

/// What is left of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    /// A number of so many bytes.
    fn number(&mut self, length: usize) -> Option<usize> {
        let bytes = self.bytes(length)?;
        Some(
            bytes
                .iter()
                .fold(0, |number, &byte| (number << 8) | usize::from(byte)),
        )
    }

    /// Bytes after their number, which has `length` bytes.
    fn vector(&mut self, length: usize) -> Option<&'a [u8]> {
        let length = self.number(length)?;
        self.bytes(length)
    }
}
