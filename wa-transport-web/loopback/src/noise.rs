//! The server's side of the Noise handshake, XX and IK.

use whatsapp_rust::buffa::{Message, MessageField};
use whatsapp_rust::wacore::handshake::{NoiseCipher, NoiseHandshake};
use whatsapp_rust::wacore::libsignal::protocol::KeyPair;
use whatsapp_rust::wacore_binary::consts::{
    NOISE_PATTERN_IK, NOISE_PATTERN_XX, NOISE_PATTERN_XXFALLBACK, WA_CONN_HEADER,
};
use whatsapp_rust::waproto::whatsapp::{self as wa, handshake_message};

use crate::keys::public_bytes;

/// Which of the two handshakes a client chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Handshake {
    /// Three messages: the client did not know the server's key, or remembered another one.
    Xx,
    /// Two messages: the client remembered the server's key.
    Ik,
}

/// Why a handshake went no further.
#[derive(Debug, thiserror::Error)]
#[error("handshake: {0}")]
pub(crate) struct HandshakeFailed(&'static str);

/// A connection whose handshake is done.
pub(crate) struct Established {
    pub(crate) reading: NoiseCipher,
    pub(crate) writing: NoiseCipher,
    pub(crate) client_static: [u8; 32],
    pub(crate) payload: wa::ClientPayload,
    pub(crate) handshake: Handshake,
}

/// A handshake after the client's first message.
pub(crate) enum Hello {
    /// IK: the answer to send, and the connection.
    Done(Vec<u8>, Box<Established>),
    /// XX: the answer to send, and what the client's second message is read with.
    Finish(Vec<u8>, Box<AwaitFinish>),
}

/// An XX handshake that waits for the client's key and payload.
pub(crate) struct AwaitFinish {
    noise: NoiseHandshake,
    ephemeral: KeyPair,
}

fn array(bytes: Option<Vec<u8>>, what: &'static str) -> Result<[u8; 32], HandshakeFailed> {
    bytes
        .ok_or(HandshakeFailed(what))?
        .try_into()
        .map_err(|_| HandshakeFailed(what))
}

fn payload(bytes: &[u8]) -> Result<wa::ClientPayload, HandshakeFailed> {
    wa::ClientPayload::decode_from_slice(bytes).map_err(|_| HandshakeFailed("unreadable client payload"))
}

fn server_hello(ephemeral: &KeyPair, r#static: Option<Vec<u8>>, payload: Vec<u8>) -> Vec<u8> {
    wa::HandshakeMessage {
        server_hello: MessageField::some(handshake_message::ServerHello {
            ephemeral: Some(public_bytes(ephemeral).to_vec()),
            r#static,
            payload: Some(payload),
            ..Default::default()
        }),
        ..Default::default()
    }
    .encode_to_vec()
}

/// Reads the first message of a client and makes the server's answer.
pub(crate) fn hello(
    message: &[u8],
    server: &KeyPair,
    cert_chain: &[u8],
    ephemeral: KeyPair,
) -> Result<Hello, HandshakeFailed> {
    let hello = wa::HandshakeMessage::decode_from_slice(message)
        .ok()
        .and_then(|message| message.client_hello.into_option())
        .ok_or(HandshakeFailed("no client hello"))?;
    let client_ephemeral = array(hello.ephemeral, "no client ephemeral")?;
    let crypto = |_| HandshakeFailed("cryptography of the first message");
    if let (Some(client_static), Some(client_payload)) = (hello.r#static, hello.payload) {
        let mut noise = NoiseHandshake::new(NOISE_PATTERN_IK, &WA_CONN_HEADER).map_err(crypto)?;
        noise.authenticate(&public_bytes(server));
        noise.authenticate(&client_ephemeral);
        noise
            .mix_shared_secret(server.private_key.serialize(), &client_ephemeral)
            .map_err(crypto)?;
        let Ok(client_static) = noise.decrypt(&client_static) else {
            // The client remembers another key: it is told this one.
            return tell_key(
                NOISE_PATTERN_XXFALLBACK,
                server,
                cert_chain,
                ephemeral,
                &client_ephemeral,
            );
        };
        let client_static = array(Some(client_static), "client key")?;
        noise
            .mix_shared_secret(server.private_key.serialize(), &client_static)
            .map_err(crypto)?;
        let payload = payload(&noise.decrypt(&client_payload).map_err(crypto)?)?;

        noise.authenticate(&public_bytes(&ephemeral));
        noise
            .mix_shared_secret(ephemeral.private_key.serialize(), &client_ephemeral)
            .map_err(crypto)?;
        noise
            .mix_shared_secret(ephemeral.private_key.serialize(), &client_static)
            .map_err(crypto)?;
        let certificates = noise.encrypt(cert_chain).map_err(crypto)?;
        let (reading, writing) = noise.finish().map_err(crypto)?;
        let handshake = Handshake::Ik;
        return Ok(Hello::Done(
            server_hello(&ephemeral, None, certificates),
            Box::new(Established {
                reading,
                writing,
                client_static,
                payload,
                handshake,
            }),
        ));
    }
    tell_key(NOISE_PATTERN_XX, server, cert_chain, ephemeral, &client_ephemeral)
}

/// Answers a first message with the server's key and certificates.
fn tell_key(
    pattern: &str,
    server: &KeyPair,
    cert_chain: &[u8],
    ephemeral: KeyPair,
    client_ephemeral: &[u8; 32],
) -> Result<Hello, HandshakeFailed> {
    let crypto = |_| HandshakeFailed("cryptography of the first message");
    let mut noise = NoiseHandshake::new(pattern, &WA_CONN_HEADER).map_err(crypto)?;
    noise.authenticate(client_ephemeral);
    noise.authenticate(&public_bytes(&ephemeral));
    noise
        .mix_shared_secret(ephemeral.private_key.serialize(), client_ephemeral)
        .map_err(crypto)?;
    let key = noise.encrypt(&public_bytes(server)).map_err(crypto)?;
    noise
        .mix_shared_secret(server.private_key.serialize(), client_ephemeral)
        .map_err(crypto)?;
    let certificates = noise.encrypt(cert_chain).map_err(crypto)?;
    let answer = server_hello(&ephemeral, Some(key), certificates);
    Ok(Hello::Finish(answer, Box::new(AwaitFinish { noise, ephemeral })))
}

impl AwaitFinish {
    /// Reads the client's second message.
    pub(crate) fn finish(mut self, message: &[u8]) -> Result<Established, HandshakeFailed> {
        let finish = wa::HandshakeMessage::decode_from_slice(message)
            .ok()
            .and_then(|message| message.client_finish.into_option())
            .ok_or(HandshakeFailed("no client finish"))?;
        let crypto = |_| HandshakeFailed("cryptography of the second message");
        let encrypted = finish.r#static.ok_or(HandshakeFailed("no client key"))?;
        let client_static = array(self.noise.decrypt(&encrypted).ok(), "client key")?;
        self.noise
            .mix_shared_secret(self.ephemeral.private_key.serialize(), &client_static)
            .map_err(crypto)?;
        let encrypted = finish.payload.ok_or(HandshakeFailed("no client payload"))?;
        let payload = payload(&self.noise.decrypt(&encrypted).map_err(crypto)?)?;
        let (reading, writing) = self.noise.finish().map_err(crypto)?;
        Ok(Established {
            reading,
            writing,
            client_static,
            payload,
            handshake: Handshake::Xx,
        })
    }
}
